"""Simulated songs and listeners: a data set that needs no download and whose truth is known."""

from dsaml_jax.datasets.synthetic.builder import (
    Synthetic,
    SyntheticConfig,
    builder_config,
    prepare,
)
from dsaml_jax.datasets.synthetic.settings import SyntheticSettings

__all__ = ["Synthetic", "SyntheticConfig", "SyntheticSettings", "builder_config", "prepare"]
