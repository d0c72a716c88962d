"""The main job on simulated songs and listeners, in five minutes on two cores."""

from configs import base


def get_config():
    config = base.get_config()
    config.data.min_songs = 5

    # 16 kHz and coarse images (11 frames x 40 bands): the adapter's cost is that of its pixels.
    config.audio.sample_rate = 16_000
    config.audio.hop_s = 0.05
    config.audio.mel_bands = 40

    config.model.dim = 64
    config.model.heads = 4
    config.model.layers = 2
    config.model.feed_forward = 128
    config.model.lstm_dim = 32
    config.model.predictor_dim = 32

    config.tasks.meta_batch = 8
    config.tasks.query = 4
    config.inner.steps = 5
    config.inner.estimator = "second_order"
    config.inner.optimizer.options.learning_rate = 0.05

    config.population.steps = 600
    config.population.optimizer.options.learning_rate = 1e-3
    config.population.validate_every = 50
    config.meta.steps = 300
    config.meta.optimizer.options.learning_rate = 5e-4
    config.meta.validate_every = 50
    config.meta_from_population = True

    config.evaluation.chunk = 16
    return config
