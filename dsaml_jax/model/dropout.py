"""Dropout (Srivastava et al. 2014) whose masks for many places are drawn at once.

Each draw is a hundred operations to compile, twice that where a gradient computes it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

LEVELS = 2**16
"""Random numbers have 16 bits: rates are multiples of 1 / 65536."""


def factors(
    key: jax.Array, rate: float, shapes: Sequence[tuple[int, ...]], dtype: jnp.dtype
) -> list[jax.Array]:
    """Independent arrays of the given shapes: 0 with probability `rate`, else 1 / (1 - rate)."""
    sizes = [math.prod(shape) for shape in shapes]
    dropped = round(rate * LEVELS)
    kept = jax.random.bits(key, (sum(sizes),), jnp.uint16) >= dropped
    ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
    return [
        part.reshape(shape) * jnp.asarray(LEVELS / (LEVELS - dropped), dtype)
        for part, shape in zip(jnp.split(kept, ends), shapes, strict=True)
    ]
