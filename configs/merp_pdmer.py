"""Adapt to a MERP listener on the first clip of one song, test on other whole songs.

    python launch.py --config=configs/merp_pdmer.py --config.data.root=DIR

Sizes are those of configs/demo.py: 54 songs are few to train more on.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config():
    config = demo.get_config()
    config.data.name = "merp"
    config.data.builder = ConfigDict()
    # Whoever has two songs within one split is a listener to adapt to.
    config.data.min_songs = 2
    config.data.validation_min_songs = 2
    config.data.filters.more_songs_than = 1
    # Test raters shall not be chosen by how they rate; flat ratings are reported as undefined.
    config.data.filters.least_deviation = 0.0
    # Few songs, many raters: more songs than usual go to the test.
    config.data.split.validation = 0.15
    config.data.split.test = 0.25

    config.tasks.query = 1

    config.evaluation.whole_songs = True
    config.evaluation.hops = (30, 30)
    return config
