"""The mean rating of VGMIDI's raters, the same for everybody: no annotators, no adapting."""

from configs import vgmidi_pdmer


def get_config():
    config = vgmidi_pdmer.get_config()
    config.data.labels = "consensus"
    config.tasks.meta_batch = 1
    config.tasks.query = 15
    return config
