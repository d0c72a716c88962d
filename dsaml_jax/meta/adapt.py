"""The inner loop: K optimizer steps from shared weights to the weights of one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError
from dsaml_jax.meta.engines import ENGINES, Engine, scan
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Params, Problem
from dsaml_jax.meta.steps import check_symmetry, inner_parts
from dsaml_jax.meta.trees import merge

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


class Adapted(NamedTuple):
    """The result of the inner loop.

    Attributes:
      params: all weights after the last step, θ_K.
      losses: inner objective before each step, [K], without derivatives.
      path: outputs of `after`, stacked to [K, ...]; None if there is no `after`.
      state: state of the support loss after the last step; None if it has none.
    """

    params: Params
    losses: Float[Array, " steps"]
    path: Any
    state: Any


def adapt(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    support: Any,
    key: PRNGKeyArray,
    *,
    exact_steps: int | None = None,
    engine: Engine = ENGINES["remat"],
    after: Callable[[Params, Any, jax.Array], Any] | None = None,
) -> Adapted:
    """Runs θ_(k+1) = θ_k + m_k ∘ update(g_k), g_k = ∇ loss(θ_k, batch_k, key_k, s_k), for k < K.

    Autodiff always goes through the update, including the rates m and what the optimizer takes from
    the frozen weights. Derivatives of g_k are exact, dg_k/dθ_k = ∇² loss(θ_k), in the last
    `exact_steps` steps; earlier steps treat g_k and the next state s_(k+1) as constants. Thus K
    gives exact MAML (Finn et al. 2017) and 0 its first-order approximation. The same holds for
    Newton's direction in place of g_k.

    Args:
      problem: support loss, with what it precomputes and carries.
      inner: settings of the loop.
      meta_params: θ_0, frozen weights, and the rates.
      support: data to adapt to; what is wrapped in `Stream` is given step by step.
      key: random key; each step folds in its step number.
      exact_steps: number of exactly differentiated steps, 0 to K; None for K.
      engine: how exact steps are differentiated.
      after: after(θ_(k+1), s_(k+1), k) -> any pytree, called after every step.

    Returns:
      The adapted weights, the loss before each step, the outputs of `after`, and the last state.

    Raises:
      UserError: `exact_steps` is not in 0 to K, the rates are not those of the loop, a stream has
        another length than K, the loss returns no scalar, or it has custom derivatives that the
        engine or the direction does not allow.
    """
    exact = inner.steps if exact_steps is None else exact_steps
    if not 0 <= exact <= inner.steps:
        raise UserError(f"exact_steps is {exact}; expected 0 to inner.steps = {inner.steps}.")
    parts = inner_parts(problem, inner, meta_params, support, key)
    if not inner.steps:
        params = merge(parts.start.adapted, parts.frozen)
        return Adapted(params, jnp.zeros((0,)), None, parts.start.state)
    if inner.direction == "newton" or (exact and engine.mixed):
        newton = inner.direction == "newton"
        check_symmetry(parts, problem, key, "Newton's direction" if newton else "the mixed engine")
    carry, outputs = parts.start, []
    constant = inner.steps - exact
    for differentiated, steps, segment_engine in (
        (None, slice(0, constant), ENGINES["reverse"]),
        (engine, slice(constant, inner.steps), engine),
    ):
        if steps.start < steps.stop:
            step = parts.step_with(differentiated)

            def step_and_after(carry, inputs, step=step):
                carry, value = step(carry, inputs)
                params = merge(carry.adapted, parts.frozen)
                return carry, (value, after and after(params, carry.state, inputs.k))

            inputs = jax.tree.map(lambda x, steps=steps: x[steps], parts.inputs)
            carry, output = scan(step_and_after, carry, inputs, segment_engine)
            outputs.append(output)
    losses, path = jax.tree.map(lambda *segments: jnp.concatenate(segments), *outputs)
    return Adapted(merge(carry.adapted, parts.frozen), losses, path, carry.state)
