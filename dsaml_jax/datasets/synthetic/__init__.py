"""A simulated data set: songs and listeners whose ground truth is known, with no download."""

from dsaml_jax.datasets.synthetic.builder import (
    Synthetic,
    SyntheticConfig,
    build,
    builder_config,
)
from dsaml_jax.datasets.synthetic.settings import SyntheticSettings

__all__ = ["Synthetic", "SyntheticConfig", "SyntheticSettings", "build", "builder_config"]
