"""Along the inner path θ_0 ... θ_K of one task: losses, curvature, and the backward gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.meta.adapt import InnerLoop, MetaParams, inner_parts
from dsaml_jax.meta.diagnostics.hessian import hessian_product, lanczos
from dsaml_jax.meta.engines import ENGINES, exact_gradient
from dsaml_jax.meta.problem import Problem, Task
from dsaml_jax.meta.subset import merge


class InnerPath(NamedTuple):
    """Attributes:
    losses: what is minimized, before each step, [K].
    query_loss: after the last.
    gradients: of the query loss in the adapted weights, carried back through the inner loop to
      θ_0, ..., θ_K; a tree of [K + 1, ...]. The last is the first-order meta-gradient, the first
      the exact one, and the one at K - n that of truncation to the last n steps.
    eigenvalues: largest and smallest eigenvalue of the support loss's Hessian in the adapted
      weights at θ_0, ..., θ_(K-1), [K, 2].
    """

    losses: jax.Array
    query_loss: jax.Array
    gradients: Any
    eigenvalues: jax.Array


def inner_path(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    task: Task,
    key: jax.Array,
    *,
    iterations: int,
) -> InnerPath:
    """Follows one task there and back; K >= 1, `iterations` of Lanczos at every step.

    Stores K + 1 copies of the adapted weights and of the optimizer's state.
    """
    inner_key, query_key = jax.random.split(key)
    parts = inner_parts(
        problem.loss, inner, meta_params, task.support, inner_key, problem.precompute
    )
    step = parts.step_with(exact_gradient(parts.loss, ENGINES["reverse"]))
    steps = jnp.arange(inner.steps)

    def forward(carry, k):
        following, value = step(carry, k)
        return following, (carry, value)

    end, (carries, losses) = jax.lax.scan(forward, parts.start, steps)

    def query_loss(adapted):
        return problem.query_loss(merge(adapted, parts.frozen), task.query, query_key)[0]

    value, last = jax.value_and_grad(query_loss)(end[0])
    floating, _ = _differentiable(end[1])

    def backward(cotangent, now):
        carry, k = now
        state, counts = _differentiable(carry[1])

        def move(adapted, state):
            (adapted, state), _ = step((adapted, merge(state, counts)), k)
            return adapted, _differentiable(state)[0]

        cotangent = jax.vjp(move, carry[0], state)[1](cotangent)
        return cotangent, cotangent[0]

    nothing = jax.tree.map(jnp.zeros_like, floating)
    _, earlier = jax.lax.scan(backward, (last, nothing), (carries, steps), reverse=True)
    gradients = jax.tree.map(lambda g, v: jnp.concatenate([g, v[None]]), earlier, last)

    def extremes(now):
        (adapted, _), k = now
        product = hessian_product(
            lambda adapted: parts.loss(adapted, parts.rest, jax.random.fold_in(inner_key, k)),
            adapted,
        )
        ritz = lanczos(product, adapted, jax.random.fold_in(inner_key, k), iterations)
        return jnp.stack([ritz[-1], ritz[0]])

    eigenvalues = jax.lax.map(extremes, (carries, steps))
    return InnerPath(losses, value, gradients, eigenvalues)


def _differentiable(state: Any) -> tuple[Any, Any]:
    """Splits a tree into its floating-point leaves and the others, None in the places of each."""

    def pick(floating: bool):
        return jax.tree.map(
            lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) == floating else None,
            state,
        )

    return pick(True), pick(False)
