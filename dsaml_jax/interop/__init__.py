"""Readers of weights from other programs."""

from dsaml_jax.interop.dsaml_release import load_dsaml_checkpoint

__all__ = ["load_dsaml_checkpoint"]
