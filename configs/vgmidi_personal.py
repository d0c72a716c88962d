"""Adapt to a VGMIDI listener on one piece, with the departures from the paper of `personal.py`.

    python launch.py --config=configs/vgmidi_personal.py --config.data.root=DIR

Otherwise `configs/vgmidi_pdmer.py`.
"""

from typing import Any

from configs import vgmidi_pdmer
from configs.personal import personalize


def get_config() -> Any:
    """Returns personalized PDMER on VGMIDI."""
    config = personalize(vgmidi_pdmer.get_config())
    config.listeners.steps = 200
    config.listeners.optimizer.options.learning_rate = 2e-3
    config.population.steps = 20
    config.population.validate_every = 20
    config.meta.steps = 200
    config.meta.validate_every = 50
    return config
