"""`study_all_weights` in minutes: a tiny model, few songs, no diagnoses, no costs."""

from typing import Any

from configs import study_all_weights

VARIANTS = ("exact", "exact, head", "first order", "implicit", "reptile")


def get_config() -> Any:
    """Returns the small comparison."""
    config = study_all_weights.get_config()
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
    config.population.steps = 200
    config.population.validate_every = 100
    config.meta.steps = 60
    config.meta.validate_every = 30
    config.evaluation.episodes = 1
    config.evaluation.resamples = 2000
    config.diagnostics.every = 0
    variants = config.comparison.variants.to_dict()
    config.comparison.variants = {name: variants[name] for name in VARIANTS}
    config.comparison.seeds = (0, 1)
    config.comparison.cost_steps = ()
    return config
