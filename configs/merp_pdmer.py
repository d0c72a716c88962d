"""Adapt to a MERP listener on the first clip of one song, test on other whole songs.

    python launch.py --config=configs/merp_pdmer.py --config.data.root=DIR

As configs/vgmidi_pdmer.py, few songs and many raters; but a listener may have more than two songs.
"""

from configs import vgmidi_pdmer


def get_config():
    config = vgmidi_pdmer.get_config()
    config.data.name = "merp"
    config.tasks.meta_batch = 16
    config.evaluation.episodes = 3
    config.evaluation.query = 8
    return config
