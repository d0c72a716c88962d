"""Simulated songs and listeners: a data set that needs no download and whose truth is known."""

from dsaml_jax.datasets.synthetic.builder import (
    Synthetic,
    SyntheticConfig,
    SyntheticSettings,
    builder_config,
    prepare,
)

__all__ = ["Synthetic", "SyntheticConfig", "SyntheticSettings", "builder_config", "prepare"]
