"""DSAML in JAX: what one listener feels while a song plays."""

import importlib

__all__ = ["DSAML", "DSAMLConfig"]


def __getattr__(name: str):
    # Loaded on first use, so that `dsaml_jax.meta` can be imported without the music model.
    if name in __all__:
        return getattr(importlib.import_module("dsaml_jax.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
