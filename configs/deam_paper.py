"""The released experiment on DEAM: adapt to a listener on one song, test on others.

Trains on the excerpts 1001-2000, whose raters are known, and tests on the whole songs 2001-2058.
Songs up to 1000 have only averaged ratings: they are read and reported, but give no tasks.

    python launch.py --config=configs/deam_paper.py --mode=prepare --config.data.root=DIR
"""

from typing import Any

from configs import base


def get_config() -> Any:
    """Returns the released experiment on DEAM."""
    config = base.get_config()
    config.data.name = "deam"
    # Two separate tables: the release's protocol (support and query from the same song), and
    # adaptation across songs.
    config.evaluation.protocols = ("same_song", "cross_song")
    return config
