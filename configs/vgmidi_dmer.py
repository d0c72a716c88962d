"""DMER on VGMIDI: the mean rating, the same for every listener; nothing is adapted."""

from typing import Any

from configs import vgmidi_pdmer


def get_config() -> Any:
    """Returns DMER on VGMIDI."""
    config = vgmidi_pdmer.get_config()
    config.data.labels = "consensus"
    config.tasks.meta_batch = 1
    config.tasks.query = 15
    return config
