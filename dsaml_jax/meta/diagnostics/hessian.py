"""Extreme eigenvalues of a Hessian, computed from Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dsaml_jax.meta.trees import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


def lanczos(
    product: Callable[[Any], Any], like: Any, key: PRNGKeyArray, iterations: int
) -> Float[Array, " iterations"]:
    """Returns the Ritz values of a symmetric linear map, ascending; extreme ones converge first.

    The Lanczos recursion starts from a random vector and reorthogonalizes every new vector twice
    against all earlier ones; without this the extreme eigenvalues appear several times. If the
    Krylov space is exhausted early, the remaining values are 0. The recursion runs in float32 or
    wider, whatever the dtype of v.

    Args:
      product: v -> A v on pytrees with the structure of `like`.
      like: pytree that gives shapes and dtypes of v.
      key: random key of the start vector.
      iterations: number of iterations m; memory is m vectors.
    """
    half, unravel = ravel_pytree(like)
    flat = at_least_float32(half)
    start = jax.random.normal(key, flat.shape, flat.dtype)
    epsilon = jnp.sqrt(jnp.finfo(flat.dtype).eps)

    def step(carry, i):
        basis, vector = carry
        basis = basis.at[i].set(vector)
        image = ravel_pytree(product(unravel(vector.astype(half.dtype))))[0].astype(flat.dtype)
        diagonal = vector @ image
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        length = jnp.linalg.norm(image)
        # The residual of an exhausted Krylov space is rounding noise: stop the recursion there.
        ended = length <= epsilon * jnp.maximum(jnp.abs(diagonal), jnp.finfo(flat.dtype).tiny)
        length = jnp.where(ended, 0.0, length)
        following = jnp.where(ended, 0.0, image / jnp.where(ended, 1.0, length))
        return (basis, following), (diagonal, length)

    basis = jnp.zeros((iterations, len(flat)), flat.dtype)
    carry = basis, start / jnp.linalg.norm(start)
    _, (diagonal, off) = jax.lax.scan(step, carry, jnp.arange(iterations))
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    return jnp.linalg.eigvalsh(tridiagonal)
