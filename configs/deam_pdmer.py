"""Adapt to a DEAM listener on one song, test on others: the released sizes, personalized.

`configs/deam_paper.py` (the released experiment) with the departures of `configs/personal.py`:

    python launch.py --config=configs/deam_pdmer.py --mode=prepare --config.data.root=DIR

Steps and learning rates are those of the demo, scaled to DEAM's songs; nobody has validated them
on DEAM, whose sound cannot be downloaded freely.
"""

from typing import Any

from configs import deam_paper
from configs.personal import personalize


def get_config() -> Any:
    """Returns personalized PDMER on DEAM."""
    config = personalize(deam_paper.get_config())
    config.listeners.steps = 700
    config.listeners.optimizer.options.learning_rate = 1e-3
    config.listeners.songs_at_once = 4  # of paper size; memory only
    config.population.steps = 200
    config.population.validate_every = 20
    config.meta.steps = 300
    config.meta.validate_every = 50
    return config
