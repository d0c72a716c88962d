"""Adapt to a VGMIDI listener on one piece, test on the other: real ratings, minutes on two cores.

    python launch.py --config=configs/vgmidi_pdmer.py --config.data.root=DIR

`configs/vgmidi_paper.py` with the departures of `configs/personal.py`.
"""

from typing import Any

from configs import vgmidi_paper
from configs.personal import personalize


def get_config() -> Any:
    """Returns personalized PDMER on VGMIDI."""
    config = personalize(vgmidi_paper.get_config())
    config.listeners.steps = 200
    config.listeners.optimizer.options.learning_rate = 2e-3
    config.population.steps = 20
    config.population.validate_every = 20
    config.meta.steps = 200
    config.meta.validate_every = 50
    return config
