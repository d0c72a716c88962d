"""DSAML in JAX: what one listener feels while a song plays."""

from dsaml_jax.model import DSAML, DSAMLConfig

__all__ = ["DSAML", "DSAMLConfig"]
