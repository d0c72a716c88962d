"""The whole pipeline on simulated songs and listeners, in five minutes on two cores.

`configs/demo_paper.py` with the departures from the paper that let one song tell who listens.
"""

from typing import Any

from configs import demo_paper
from configs.personal import personalize


def get_config() -> Any:
    """Returns the demo."""
    config = personalize(demo_paper.get_config())
    # Many listeners rate few songs each: what they differ in is learned from all of them.
    config.data.builder.train_songs = 800
    config.data.builder.train_annotators = 1120

    config.listeners.steps = 300
    config.listeners.optimizer.options.learning_rate = 4e-3
    # After 20 steps the population model no longer improves on validation listeners.
    config.population.steps = 20
    config.population.validate_every = 20
    config.meta.steps = 300
    config.meta.validate_every = 100
    config.tasks.meta_batch = 32
    config.tasks.query = 4

    config.evaluation.episodes = 2
    config.evaluation.songs_curve = (1, 2, 3, 5, 10)
    return config
