"""Extreme eigenvalues of a Hessian that is too large to write down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


def hessian_product(loss: Callable[[Any], jax.Array], params: Any) -> Callable[[Any], Any]:
    """v -> ∇² loss(params) v, forward over reverse."""
    return lambda v: jax.jvp(jax.grad(loss), (params,), (v,))[1]


def lanczos(product: Callable[[Any], Any], like: Any, key: jax.Array, iterations: int) -> jax.Array:
    """Ritz values [iterations] of a symmetric linear map, ascending; the outermost converge first.

    Lanczos' recursion from a random start, with every new vector made orthogonal to all before it
    (twice), without which the outer eigenvalues come out several times. Where the space is used up
    before the iterations are, the values that remain are 0.

    Args:
      product: v -> A v on pytrees like `like`.
      like: gives shapes and types.
      key: of the start.
      iterations: m; the memory is m vectors.
    """
    flat, unravel = ravel_pytree(like)
    start = jax.random.normal(key, flat.shape, flat.dtype)
    epsilon = jnp.sqrt(jnp.finfo(flat.dtype).eps)

    def step(carry, i):
        basis, vector = carry
        basis = basis.at[i].set(vector)
        image = ravel_pytree(product(unravel(vector)))[0]
        diagonal = vector @ image
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        length = jnp.linalg.norm(image)
        # What is left of a used-up space is rounding noise: the recursion ends there.
        ended = length <= epsilon * jnp.maximum(jnp.abs(diagonal), jnp.finfo(flat.dtype).tiny)
        length = jnp.where(ended, 0.0, length)
        following = jnp.where(ended, 0.0, image / jnp.where(ended, 1.0, length))
        return (basis, following), (diagonal, length)

    basis = jnp.zeros((iterations, len(flat)), flat.dtype)
    carry = basis, start / jnp.linalg.norm(start)
    _, (diagonal, off) = jax.lax.scan(step, carry, jnp.arange(iterations))
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    return jnp.linalg.eigvalsh(tridiagonal)
