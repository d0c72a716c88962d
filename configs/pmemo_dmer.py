"""DMER on PMEmo's choruses (2019 release: averaged labels only), split at random.

    python launch.py --config=configs/pmemo_dmer.py --config.data.root=DIR

Sizes and hyperparameters are those of configs/deam_dmer.py.
"""

from typing import Any

from configs import deam_dmer


def get_config() -> Any:
    """Returns DMER on PMEmo."""
    config = deam_dmer.get_config()
    config.data.name = "pmemo"
    return config
