"""The released experiment: sizes and hyperparameters of Zhang et al., AAAI 2025, and their code.

Every other config is a short change to this one, and

    python launch.py --config=configs/NAME.py --config.any.field=value

changes a field for one run. All fields, their units and their defaults are in `dsaml_jax/config/`,
`dsaml_jax/audio/config.py` and `dsaml_jax/model/config.py`: 44.1 kHz, 60 ms windows every 10 ms,
128 mel bands, clips of 60 half seconds; D 1024, 16 heads, 3 layers, feed-forward 2048, attention
bands of 5 and 30 segments (30 M parameters); annotators of 15 songs or fewer, and flat ratings, are
left out of real data sets.
"""

from typing import Any

from dsaml_jax.config.authoring import defaults, engine, estimator, optimizer
from dsaml_jax.config.experiment import Experiment

__all__ = ["engine", "estimator", "get_config", "optimizer"]


def get_config() -> Any:
    """Returns the released experiment, on simulated data."""
    config = defaults(Experiment)
    # A meta-step: 16 annotators, each adapted on 1 song and tested on 15.
    config.tasks.meta_batch = 16
    config.tasks.support = 1
    config.tasks.query = 15
    # 16 inner steps of SGD over all weights; the release is first order only.
    config.inner.steps = 16
    config.inner.optimizer = optimizer("sgd", learning_rate=5e-3)
    config.inner.estimator = estimator("first_order")
    # The population model is trained on the same tasks' query songs without adapting.
    config.population.steps = 2000
    config.population.optimizer = optimizer("adam", learning_rate=5e-5)
    config.meta.steps = 2000
    config.meta.optimizer = optimizer("adam", learning_rate=5e-5)
    return config
