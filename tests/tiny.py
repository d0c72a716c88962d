"""The smallest experiment that uses every part of the package, for end-to-end tests."""

from typing import Any

from configs import demo_paper


def get_config() -> Any:
    """Returns the tiny experiment."""
    config = demo_paper.get_config()
    config.data.processes = 1  # faster than starting more for a few songs
    config.data.min_songs = 3
    config.data.validation_min_songs = 3
    config.data.builder = dict(
        train_songs=6,
        validation_songs=4,
        test_songs=4,
        train_annotators=4,
        validation_annotators=2,
        test_annotators=3,
        minimum_songs=3,
        duration_s=7.0,
        ratings_start_s=1.0,
    )
    config.audio.segments = 12
    config.audio.mel_bands = 16
    config.model.dim = 8
    config.model.heads = 2
    config.model.layers = 1
    config.model.feed_forward = 8
    config.model.lstm_dim = 4
    config.model.predictor_dim = 4
    config.tasks.meta_batch = 2
    config.tasks.query = 2
    config.inner.steps = 2
    config.inner.adapt = "head"
    config.inner.rates = "per_tensor_and_step"
    config.inner.rates_learning_rate = 0.01
    config.diagnostics = dict(every=2, batches=2, iterations=3)
    config.population.steps = 4
    config.population.validate_every = 2
    config.meta.steps = 4
    config.meta.validate_every = 2
    config.evaluation.chunk = 2
    config.evaluation.query = 2
    config.evaluation.resamples = 100
    return config
