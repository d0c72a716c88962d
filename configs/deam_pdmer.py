"""The released experiment on DEAM: one song of a listener to adapt on, others to be tested on.

Trains on the excerpts 1001-2000, whose raters are known, and tests on the whole songs 2001-2058.
Songs to 1000 have only averaged ratings: they are read, reported and no task.

    python launch.py --config=configs/deam_pdmer.py --mode=prepare --config.data.root=DIR
"""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "deam"
    # The release's test (support and query are of one song), and adapting across songs, apart.
    config.evaluation.protocols = ("same_song", "cross_song")
    return config
