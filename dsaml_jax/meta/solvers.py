"""Solvers of A w = v for a symmetric A that is known by its products A x alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from optax import tree

if TYPE_CHECKING:
    from jaxtyping import Array, Float

SOLVERS = ("cg", "normal_cg", "neumann")
"""Conjugate gradients, for a positive definite A; conjugate gradients on A² w = A v, for any
invertible A, with two products a step and the square of its condition number; the Neumann series,
for a positive definite A whose eigenvalues are below 2 / step."""

Product = Callable[[Any], Any]


class Solution(NamedTuple):
    """An approximate solution of A w = v.

    Attributes:
      w: the solution, a tree like v.
      curvature: smallest x·A x / x·x over the directions x that the solver took. At most the
        smallest eigenvalue of A that v has a part in; a negative one proves that A is indefinite.
    """

    w: Any
    curvature: Float[Array, ""]


def solve(
    kind: str, product: Product, v: Any, *, steps: int, tolerance: float, step_size: float
) -> Solution:
    """Solves A w = v.

    Args:
      kind: one of `SOLVERS`.
      product: x -> A x.
      v: the right-hand side.
      steps: maximum number of steps.
      tolerance: residual relative to that of w = 0 at which conjugate gradients stop.
      step_size: η of the Neumann series w = η Σ_j (I - η A)^j v.
    """
    if kind == "neumann":
        return _neumann(product, v, steps, step_size)
    if kind == "normal_cg":
        return _cg(product, lambda image: product(image), product(v), steps, tolerance)
    return _cg(product, lambda image: image, v, steps, tolerance)


class _State(NamedTuple):
    step: jax.Array
    w: Any
    residual: Any
    direction: Any
    square: jax.Array
    curvature: jax.Array


def _cg(product: Product, complete: Product, v: Any, steps: int, tolerance: float) -> Solution:
    """Runs conjugate gradients on M w = v, M x = complete(A x) being A or A²."""
    limit = tolerance**2 * _dot(v, v)

    def unfinished(state):
        return (state.step < steps) & (state.square > limit)

    def step(state):
        image = product(state.direction)
        length = _dot(state.direction, state.direction)
        curvature = _dot(state.direction, image) / length
        image = complete(image)
        scale = _dot(state.direction, image)
        # A direction without curvature has no minimum along it; it ends the recursion.
        ended = scale == 0
        alpha = jnp.where(ended, 0.0, state.square / jnp.where(ended, 1.0, scale))
        residual = _add(state.residual, -alpha, image)
        square = jnp.where(ended, 0.0, _dot(residual, residual))
        return _State(
            state.step + 1,
            _add(state.w, alpha, state.direction),
            residual,
            _add(residual, square / state.square, state.direction),
            square,
            jnp.minimum(state.curvature, curvature),
        )

    square = _dot(v, v)
    start = _State(
        jnp.zeros((), int), tree.zeros_like(v), v, v, square, jnp.full_like(square, jnp.inf)
    )
    end = jax.lax.while_loop(unfinished, step, start)
    return Solution(end.w, end.curvature)


def _neumann(product: Product, v: Any, steps: int, step_size: float) -> Solution:
    def step(carry, _):
        w, term = carry
        image = product(term)
        square = _dot(term, term)
        curvature = jnp.where(
            square > 0, _dot(term, image) / jnp.where(square > 0, square, 1.0), jnp.inf
        )
        return (_add(w, step_size, term), _add(term, -step_size, image)), curvature

    (w, _), curvatures = jax.lax.scan(step, (tree.zeros_like(v), v), length=steps)
    return Solution(w, curvatures.min())


def _dot(x: Any, y: Any) -> jax.Array:
    return jnp.asarray(tree.vdot(x, y))


def _add(x: Any, scale: jax.Array | float, y: Any) -> Any:
    """Returns x + scale y in the dtypes of x."""
    return jax.tree.map(lambda a, b: (a + scale * b).astype(a.dtype), x, y)
