"""Adapt to a MERP listener on the first clip of one song, test on other whole songs.

    python launch.py --config=configs/merp_pdmer.py --config.data.root=DIR

Few songs and many raters, as in configs/vgmidi_pdmer.py, but listeners may have more than two
songs.
"""

from typing import Any

from configs import vgmidi_personal


def get_config() -> Any:
    """Returns PDMER on MERP."""
    config = vgmidi_personal.get_config()
    config.data.name = "merp"
    config.tasks.meta_batch = 16
    config.evaluation.episodes = 3
    config.evaluation.query = 8
    return config
