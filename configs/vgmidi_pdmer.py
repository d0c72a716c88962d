"""Adapt to a VGMIDI listener on one piece, test on the other: real ratings, minutes on two cores.

    python launch.py --config=configs/vgmidi_pdmer.py --config.data.root=DIR

Every rater rated two pieces, so a task has one support and one query piece, and is tested both ways
round. Method and sizes are those of configs/demo_paper.py: on validation they were ahead of
configs/vgmidi_personal.py (docs/results/vgmidi.md).
"""

from typing import Any

from configs import demo_paper


def get_config() -> Any:
    """Returns PDMER on VGMIDI."""
    config = demo_paper.get_config()
    config.data.name = "vgmidi"
    config.data.builder = {}
    config.data.min_songs = 2
    config.data.validation_min_songs = 2
    config.data.filters.more_songs_than = 1
    # Test raters must not be selected by their ratings; flat ratings are reported as undefined.
    config.data.filters.least_deviation = 0.0
    # Few pieces, many raters: a larger share of the pieces is for testing.
    config.data.split.validation = 0.15
    config.data.split.test = 0.25

    config.tasks.support = 1
    config.tasks.query = 1
    config.tasks.meta_batch = 24

    config.population.steps = 800
    config.population.validate_every = 50
    config.meta.steps = 120
    config.meta.validate_every = 30

    config.evaluation.whole_songs = True
    config.evaluation.hops = (30, 30)
    config.evaluation.episodes = 2
    config.evaluation.query = 1
    return config
