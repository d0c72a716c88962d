"""Losses, curvature and backpropagated gradients along the inner path θ_0 ... θ_K of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.meta.adapt import InnerLoop, MetaParams, inner_parts
from dsaml_jax.meta.diagnostics.hessian import lanczos
from dsaml_jax.meta.directions import hessian_product
from dsaml_jax.meta.engines import ENGINES
from dsaml_jax.meta.problem import Episode, Problem, Task
from dsaml_jax.meta.subset import merge

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


class InnerPath(NamedTuple):
    """The inner path of a task.

    Attributes:
      losses: inner objective before each step, [K].
      query_loss: query loss after the last step.
      gradients: gradient of the query loss with respect to the adapted weights, carried back
        through the inner loop to θ_0, ..., θ_K; a tree of [K + 1, ...]. The last one is the
        first-order meta-gradient, the first one the exact meta-gradient, and the one at K - n the
        meta-gradient truncated to the last n steps.
      eigenvalues: largest and smallest eigenvalue of the Hessian of the support loss with respect
        to the adapted weights at θ_0, ..., θ_(K-1), [K, 2].
    """

    losses: Float[Array, " steps"]
    query_loss: Float[Array, ""]
    gradients: Any
    eigenvalues: Float[Array, "steps 2"]


def inner_path(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    task: Task,
    key: PRNGKeyArray,
    *,
    iterations: int,
) -> InnerPath:
    """Runs the inner loop of one task forward and backward, and Lanczos at every step.

    Stores K + 1 copies of the adapted weights and of the optimizer's state.

    Args:
      problem: losses.
      inner: inner loop of K >= 1 steps.
      meta_params: θ_0 and the inner rates.
      task: support and query.
      key: random key of the task.
      iterations: Lanczos iterations at every step.
    """
    episode = Episode.create(problem, inner, task, key)
    parts = inner_parts(
        problem.loss, inner, meta_params, task.support, episode.inner_key, problem.precompute
    )
    step = parts.step_with(ENGINES["reverse"])
    steps = jnp.arange(inner.steps)

    def forward(carry, k):
        following, value = step(carry, k)
        return following, (carry, value)

    end, (carries, losses) = jax.lax.scan(forward, parts.start, steps)

    def query_loss(adapted):
        return episode.query_loss(merge(adapted, parts.frozen))[0]

    value, last = jax.value_and_grad(query_loss)(end[0])
    floating, _ = _differentiable(end[1])

    def backward(cotangent, carry_and_k):
        carry, k = carry_and_k
        state, counts = _differentiable(carry[1])

        def move(adapted, state):
            (adapted, state), _ = step((adapted, merge(state, counts)), k)
            return adapted, _differentiable(state)[0]

        cotangent = jax.vjp(move, carry[0], state)[1](cotangent)
        return cotangent, cotangent[0]

    zeros = jax.tree.map(jnp.zeros_like, floating)
    _, earlier = jax.lax.scan(backward, (last, zeros), (carries, steps), reverse=True)
    gradients = jax.tree.map(lambda g, v: jnp.concatenate([g, v[None]]), earlier, last)

    def extremes(carry_and_k):
        (adapted, _), k = carry_and_k
        step_key = jax.random.fold_in(episode.inner_key, k)
        product = hessian_product(
            lambda adapted: parts.loss(adapted, parts.rest, step_key), adapted
        )
        ritz = lanczos(product, adapted, step_key, iterations)
        return jnp.stack([ritz[-1], ritz[0]])

    eigenvalues = jax.lax.map(extremes, (carries, steps))
    return InnerPath(losses, value, gradients, eigenvalues)


def _differentiable(state: Any) -> tuple[Any, Any]:
    """Splits a tree into its floating-point leaves and the others, each with None elsewhere."""

    def pick(floating: bool):
        return jax.tree.map(
            lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) == floating else None,
            state,
        )

    return pick(True), pick(False)
