"""Dropout (Srivastava et al. 2014) with the masks of several layers from one random draw.

A draw compiles to about a hundred operations, and to twice as many if the backward pass repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray

LEVELS = 2**16
"""Random numbers have 16 bits, so rates are multiples of 1 / 65536."""


def factors(
    key: PRNGKeyArray, rate: float, shapes: Sequence[tuple[int, ...]], dtype: jnp.dtype
) -> list[jax.Array]:
    """Draws factors that are 0 with probability `rate` and 1 / (1 - rate) otherwise.

    Args:
      key: random key.
      rate: dropout rate in [0, 1), rounded to a multiple of 1 / `LEVELS`.
      shapes: shapes of the arrays.
      dtype: dtype of the arrays.

    Returns:
      Independent arrays of these shapes.
    """
    sizes = [math.prod(shape) for shape in shapes]
    dropped = round(rate * LEVELS)
    kept = jax.random.bits(key, (sum(sizes),), jnp.uint16) >= dropped
    ends = [sum(sizes[:i]) for i in range(1, len(sizes))]
    return [
        part.reshape(shape) * jnp.asarray(LEVELS / (LEVELS - dropped), dtype)
        for part, shape in zip(jnp.split(kept, ends), shapes, strict=True)
    ]
