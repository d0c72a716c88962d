"""DSAML, from audio features to emotion curves, and its losses."""

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.dsaml import DSAML, ENCODER, MODULES, Output, initialize

__all__ = ["DSAML", "ENCODER", "MODULES", "DSAMLConfig", "Output", "initialize"]
