"""Measures the peak rates of this machine, which benchmarks compare their results with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

CALLS = 8


def median_seconds(call: Callable[[], jax.Array], repeats: int) -> float:
    """Returns the median time of a call, after a warm-up.

    An accelerator gets `CALLS` of them before it is waited for, so that the latency of a launch
    does not count.
    """
    jax.block_until_ready(call())
    calls = 1 if jax.default_backend() == "cpu" else CALLS
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls - 1):
            call()
        jax.block_until_ready(call())
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds)


def matmul_rate(dtype: str, size: int | None = None, repeats: int = 7) -> float:
    """Returns the FLOP/s of one large square matrix product.

    Its factors are random: a GPU multiplies constants faster, since that takes less power.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.float32).astype(dtype)
    multiply = jax.jit(jnp.matmul)
    return 2 * size**3 / median_seconds(lambda: multiply(x, x), repeats)


def memory_bandwidth(megabytes: int | None = None, repeats: int = 7) -> float:
    """Returns the bytes read and written per second by y = 2 x on arrays larger than any cache."""
    megabytes = megabytes or (512 if jax.default_backend() == "cpu" else 2048)
    x = jnp.ones(megabytes * 2**18, jnp.float32)
    double = jax.jit(lambda x: 2 * x)
    return 2 * x.nbytes / median_seconds(lambda: double(x), repeats)
