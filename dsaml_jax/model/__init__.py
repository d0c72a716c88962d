"""The model, from features to curves."""

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.dsaml import DSAML, ENCODER, Output, initialize

__all__ = ["DSAML", "ENCODER", "DSAMLConfig", "Output", "initialize"]
