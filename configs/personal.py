"""The departures from the paper that let one song tell who listens (docs/personalizing.md).

`configs/demo.py`, `deam_pdmer.py`, `vgmidi_personal.py` and `merp_pdmer.py` use them; how long each
stage trains, and how fast, is theirs to say.
"""

from typing import Any

from configs.base import estimator


def personalize(config: Any) -> Any:
    """Changes features, model, inner loop and what is meta-learned; returns the config."""
    # What listeners differ in, such as how mode moves them, is heard in music descriptors.
    config.audio.embedding = "descriptors"

    # An adapter of few numbers, an inner loss that infers, a decision on top of what is inferred.
    config.model.context_dim = 14
    config.model.support_loss = "likelihood"
    config.model.decision = True
    # What the output layer reads deviates by 1/100 in a fresh network, of the demo's and of the
    # paper's size alike.
    config.model.basis_scale = 80.0

    # The network learns what listeners differ in, from all raters of a song at once.
    config.listeners.warmup = 20
    config.listeners.decay = "cosine"
    config.listeners.clip_norm = 20.0
    config.listeners.infer_last = 10
    config.listeners.embedding_noise = 0.25
    config.listeners.log_mel_noise = 0.3

    # The rival: all weights go on from there to learn one curve for everybody, on the score.
    config.population.optimizer.options.learning_rate = 1e-4
    config.population.clip_norm = 1.0
    config.population.warmup = 10

    # Meta-learning of the head alone, on songs encoded once. The inner loss is quadratic in the
    # context, so that one Newton step gives its posterior mean (ALPaCA).
    config.inner.steps = 1
    config.inner.adapt = "context"
    config.inner.direction = "newton"
    config.inner.proximal = 1.0
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.inner.optimizer.options.learning_rate = 1.0
    config.inner.estimator = estimator("second_order")
    config.meta_from_population = False
    config.meta.train = "predictor/output, predictor/context, likelihood, decision"
    config.meta.optimizer.options.learning_rate = 3e-3
    config.meta.clip_norm = 1.0
    config.meta.decay = "cosine"
    config.meta.warmup = 20
    return config
