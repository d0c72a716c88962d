"""The model, from features to curves."""

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.dsaml import DSAML, Output, initialize

__all__ = ["DSAML", "DSAMLConfig", "Output", "initialize"]
