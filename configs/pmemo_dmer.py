"""DMER on PMEmo's choruses (2019 release: averaged labels only), split at random.

python launch.py --config=configs/pmemo_dmer.py --config.data.root=DIR
"""

from configs import deam_dmer


def get_config():
    config = deam_dmer.get_config()
    config.data.name = "pmemo"
    return config
