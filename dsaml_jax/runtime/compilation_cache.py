"""The persistent cache of compiled programs."""

from __future__ import annotations

import jax


def enable_compilation_cache(folder: str) -> None:
    """Stores every compiled program in `folder`, so that later runs need not compile it again."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
