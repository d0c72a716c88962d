"""The paper's method at the demo's size: score as the inner loss, one rate per tensor and step.

`configs/demo.py` departs from it, field by field; the studies of meta-gradients build on it.
"""

from typing import Any

from configs import base
from configs.base import estimator


def get_config() -> Any:
    """Returns the paper's method on simulated songs and listeners."""
    config = base.get_config()
    config.data.min_songs = 5
    config.data.validation_min_songs = 5
    config.data.builder = dict(
        seed=0,
        train_songs=400,
        train_annotators=280,
        validation_songs=64,
        validation_annotators=128,
        test_songs=64,
        test_annotators=256,
    )

    # 16 kHz and coarse images (6 frames x 32 bands): the adapter's cost grows with its pixels.
    config.audio.sample_rate = 16_000
    config.audio.window_s = 0.1
    config.audio.hop_s = 0.1
    config.audio.mel_bands = 32

    config.model.dim = 64
    config.model.heads = 4
    config.model.layers = 2
    config.model.feed_forward = 128
    config.model.lstm_dim = 32
    config.model.predictor_dim = 32
    # Early stopping on validation regularizes.
    config.model.dropout = 0.0

    config.tasks.meta_batch = 16
    config.tasks.query = 3
    # One song adapts the last layer only (ANIL), at rates that are learned (MAML++).
    config.inner.steps = 5
    config.inner.adapt = "predictor/output/*"
    config.inner.estimator = estimator("second_order")
    config.inner.optimizer.options.learning_rate = 0.05
    config.inner.rates = "per_tensor_and_step"
    config.inner.rates_learning_rate = 0.04

    config.population.steps = 300
    config.population.optimizer.options.learning_rate = 1e-3
    config.population.decay = "cosine"
    config.population.validate_every = 50
    config.meta.steps = 100
    config.meta.optimizer.options.learning_rate = 3e-5
    config.meta.clip_norm = 1.0
    config.meta.decay = "cosine"
    config.meta.validate_every = 50
    config.meta_from_population = True

    config.evaluation.whole_songs = False  # saves a second window for the last 2 of 62 segments
    config.evaluation.query = 8
    config.evaluation.episodes = 3
    config.evaluation.chunk = 32
    return config
