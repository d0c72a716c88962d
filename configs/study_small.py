"""`study_meta_gradients` in an hour of two busy cores: a smaller model, fewer songs and seeds."""

from configs import study_meta_gradients


def get_config():
    config = study_meta_gradients.get_config()
    config.data.builder.update(
        train_songs=60,
        train_annotators=40,
        validation_songs=16,
        validation_annotators=8,
        test_songs=24,
        test_annotators=24,
    )
    config.model.dim = 16
    config.model.layers = 1
    config.model.feed_forward = 32
    config.model.lstm_dim = 8
    config.model.predictor_dim = 8
    config.tasks.meta_batch = 4
    config.population.steps = 60
    config.population.validate_every = 30
    config.meta.steps = 30
    config.meta.validate_every = 15
    config.diagnostics.every = 10
    config.diagnostics.iterations = 4
    config.evaluation.episodes = 1
    config.evaluation.resamples = 2000
    config.comparison.seeds = (0, 1)
    config.comparison.cost_steps = (1, 4, 16)
    return config
