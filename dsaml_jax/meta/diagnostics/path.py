"""Losses, curvature and backpropagated gradients along the inner path θ_0 ... θ_K of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.errors import at_least
from dsaml_jax.meta.diagnostics.hessian import lanczos
from dsaml_jax.meta.directions import hessian_product
from dsaml_jax.meta.engines import ENGINES
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Problem, Task
from dsaml_jax.meta.steps import inner_parts
from dsaml_jax.meta.trees import merge, split_floating

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

    Raises:
      UserError: K is 0.
    """
    at_least("inner.steps", inner.steps, 1)
    episode = Episode.create(problem, inner, task, key)
    parts = inner_parts(problem, inner, meta_params, episode.task.support, episode.inner_key)
    step = parts.step_with(ENGINES["reverse"])

    def forward(carry, inputs):
        following, value = step(carry, inputs)
        return following, (carry, value)

    end, (carries, losses) = jax.lax.scan(forward, parts.start, parts.inputs)
    smooth, other = split_floating(end)

    def query_loss(smooth):
        carry = merge(smooth, other)
        return episode.query_loss(merge(carry.adapted, parts.frozen), carry.state)[0]

    value, last = jax.value_and_grad(query_loss)(smooth)

    def backward(cotangent, carry_and_inputs):
        carry, inputs = carry_and_inputs
        smooth, other = split_floating(carry)

        def move(smooth):
            return split_floating(step(merge(smooth, other), inputs)[0])[0]

        (cotangent,) = jax.vjp(move, smooth)[1](cotangent)
        return cotangent, cotangent.adapted

    _, earlier = jax.lax.scan(backward, last, (carries, parts.inputs), reverse=True)
    gradients = jax.tree.map(lambda g, v: jnp.concatenate([g, v[None]]), earlier, last.adapted)

    def extremes(carry_and_inputs):
        carry, inputs = carry_and_inputs
        step_key = jax.random.fold_in(episode.inner_key, inputs.k)
        rest = parts.rest(carry, inputs)
        product = hessian_product(
            lambda adapted: parts.loss(adapted, rest, step_key)[0], carry.adapted
        )
        ritz = lanczos(product, carry.adapted, step_key, iterations)
        return jnp.stack([ritz[-1], ritz[0]])

    eigenvalues = jax.lax.map(extremes, (carries, parts.inputs))
    return InnerPath(losses, value, gradients, eigenvalues)
