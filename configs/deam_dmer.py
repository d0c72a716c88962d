"""DMER on DEAM: the averaged labels, trained on ids to 2000, tested on the whole songs 2001-2058.

    python launch.py --config=configs/deam_dmer.py --config.data.root=DIR

Sizes and hyperparameters are the release's: Adam at 5e-5, batches of 15 clips. Validation songs are
a part of the training songs, where the release validates on the test songs.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "deam"
    config.data.labels = "consensus"
    # One annotator, everyone, and of it a batch of 15 clips (drawn beside an unused support clip).
    config.tasks.meta_batch = 1
    config.tasks.query = 15
    return config
