"""DMER on DEAM: averaged labels, trained on ids up to 2000, tested on the whole songs 2001-2058.

    python launch.py --config=configs/deam_dmer.py --config.data.root=DIR

Sizes and hyperparameters are those of the release: Adam at 5e-5, batches of 15 clips. Validation
songs are taken from the training songs; the release validates on the test songs.
"""

from typing import Any

from configs import base


def get_config() -> Any:
    """Returns DMER on DEAM."""
    config = base.get_config()
    config.data.name = "deam"
    config.data.labels = "consensus"
    # The only annotator is the average, and its query songs are the batch of 15 clips. The support
    # clip drawn beside them is not used.
    config.tasks.meta_batch = 1
    config.tasks.query = 15
    return config
