"""What this machine can do at most: the ceilings that a share is taken of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Of a call whose result JAX can wait for, after one that is not counted."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def matmul_rate(dtype: str, size: int | None = None, repeats: int = 7) -> float:
    """Returns the FLOP/s of one large square matmul.

    Of random numbers: a GPU multiplies constants faster, since it needs less power for them.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.float32).astype(dtype)
    multiply = jax.jit(jnp.matmul)
    return 2 * size**3 / median_seconds(lambda: multiply(x, x), repeats)


def memory_bandwidth(megabytes: int | None = None, repeats: int = 7) -> float:
    """Bytes read and written a second by y = 2 x on arrays no cache holds."""
    megabytes = megabytes or (512 if jax.default_backend() == "cpu" else 2048)
    x = jnp.ones(megabytes * 2**18, jnp.float32)
    double = jax.jit(lambda x: 2 * x)
    return 2 * x.nbytes / median_seconds(lambda: double(x), repeats)
