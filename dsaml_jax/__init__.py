"""DSAML in JAX: personalized dynamic music emotion recognition by meta-learning."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsaml_jax.model import DSAML, DSAMLConfig

__version__ = "0.1.0"

__all__ = ["DSAML", "DSAMLConfig", "__version__"]


def __getattr__(name: str):
    # Loaded on first use, so that `dsaml_jax.meta` can be imported without the music model.
    if name in ("DSAML", "DSAMLConfig"):
        return getattr(importlib.import_module("dsaml_jax.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
