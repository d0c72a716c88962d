"""The whole pipeline on simulated songs and listeners, in five minutes on two cores.

`configs/demo_paper.py` with the departures from the paper that let one song tell who listens.
"""

from typing import Any

from configs import demo_paper
from configs.base import estimator


def get_config() -> Any:
    """Returns the demo."""
    config = demo_paper.get_config()
    # Many listeners rate few songs each: what they differ in is learned from all of them.
    config.data.builder.train_songs = 800
    config.data.builder.train_annotators = 1120

    # What listeners differ in, such as how mode moves them, is heard in music descriptors.
    config.audio.embedding = "descriptors"

    # An adapter of few numbers, an inner loss that infers, a decision on top of what is inferred.
    config.model.context_dim = 14
    config.model.support_loss = "likelihood"
    config.model.decision = True
    config.model.basis_scale = 80.0

    # The network learns what listeners differ in, from all raters of a song at once.
    config.listeners.steps = 300
    config.listeners.optimizer.options.learning_rate = 4e-3
    config.listeners.infer_last = 10
    config.listeners.warmup = 20
    config.listeners.decay = "cosine"
    config.listeners.clip_norm = 20.0
    config.listeners.embedding_noise = 0.25
    config.listeners.log_mel_noise = 0.3

    # The rival: all weights go on to learn one curve for everybody, on the score. After 20 steps it
    # no longer improves on validation listeners.
    config.population.steps = 20
    config.population.optimizer.options.learning_rate = 1e-4
    config.population.clip_norm = 1.0
    config.population.warmup = 10
    config.population.validate_every = 20

    # Meta-learning of the head alone, on songs encoded once. The inner loss is quadratic in the
    # context, so that one Newton step gives its posterior mean (ALPaCA).
    config.tasks.meta_batch = 32
    config.tasks.query = 4
    config.inner.steps = 1
    config.inner.adapt = "context"
    config.inner.direction = "newton"
    config.inner.proximal = 1.0
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.inner.optimizer.options.learning_rate = 1.0
    config.inner.estimator = estimator("second_order")
    config.meta_from_population = False
    config.meta.steps = 300
    config.meta.train = "predictor/output, predictor/context, likelihood, decision"
    config.meta.optimizer.options.learning_rate = 3e-3
    config.meta.warmup = 20
    config.meta.validate_every = 100
    config.evaluation.episodes = 2
    config.evaluation.songs_curve = (1, 2, 3, 5, 10)
    return config
