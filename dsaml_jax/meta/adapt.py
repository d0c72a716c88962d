"""The inner loop: K optimizer steps from shared weights to one task's weights, differentiable.

Nothing here knows of music: a loss is any pure function `loss(params, batch, key) -> scalar`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.meta import rates as learned
from dsaml_jax.meta.engines import ENGINES, Engine, constant_gradient, exact_gradient, scan
from dsaml_jax.meta.subset import merge, partition

Params = Any
Loss = Callable[[Params, Any, jax.Array], jax.Array]
Precompute = Callable[[Params, Any, jax.Array], Any]

PRECOMPUTE_STREAM = 2**32 - 1
"""Folded into the inner key for `precompute`, where the steps fold in their number."""


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """How a task is adapted to.

    Attributes:
      steps: K >= 0.
      optimizer: any optax transformation; its state starts afresh for every task.
      adapt: path patterns of the weights that move (see `subset.partition`); the rest is frozen.
      rates: what is learned of the inner rates, one of `rates.RATES`.
      proximal: λ >= 0; what is minimized is loss(φ) + λ/2 |φ - θ|² over the adapted weights φ.
    """

    steps: int
    optimizer: optax.GradientTransformation
    adapt: tuple[str, ...] = ("*",)
    rates: str = "fixed"
    proximal: float = 0.0

    def initial_rates(self, params: Params) -> learned.Rates:
        """The rates before anything is learned: multipliers of 1, or {} with fixed rates."""
        return learned.initial_rates(self.rates, partition(params, self.adapt)[0], self.steps)


class MetaParams(NamedTuple):
    """The meta-parameters: the shared weights θ, and the learned inner rates ({} if fixed)."""

    params: Params
    rates: learned.Rates


class Adapted(NamedTuple):
    """What the inner loop gives.

    Attributes:
      params: θ_K, all weights.
      losses: what was minimized, before each step, [K]; without derivative.
      path: what `after` made of the weights after each step, stacked to [K, ...]; None without.
    """

    params: Params
    losses: jax.Array
    path: Any


def adapt(
    loss: Loss,
    inner: InnerLoop,
    meta_params: MetaParams,
    batch: Any,
    key: jax.Array,
    *,
    precompute: Precompute | None = None,
    exact_steps: int | None = None,
    engine: Engine = ENGINES["remat"],
    after: Callable[[Params, jax.Array], Any] | None = None,
) -> Adapted:
    """Runs θ_(k+1) = θ_k + m_k ∘ update(g_k), g_k = ∇ loss(θ_k, batch, key_k), for k < K.

    The update always keeps ordinary autodiff (also in the rates m); how g_k is differentiated is
    chosen: exactly, dg_k/dθ_k = ∇² loss(θ_k), in the last `exact_steps` steps, and as a constant
    in those before. So K is exact MAML (Finn et al. 2017) and 0 its first-order approximation.

    Args:
      loss: support loss.
      inner: the inner loop.
      meta_params: θ_0, and the rates.
      batch: the support, passed on to `loss`.
      key: folded with the step number for each step's randomness.
      precompute: prepare(frozen, batch, key) -> batch, called once, before the loop, with the weights
        that are not adapted (None elsewhere); `loss` gets the batch that it returns. What depends
        on frozen weights only, such as an encoder's features, is thus computed once and not in
        every step; what is random in it is drawn once a task. It is differentiated.
      exact_steps: None for K.
      engine: how exact steps are differentiated.
      after: after(θ_(k+1), k) -> anything, called after every step.
    """
    if not inner.steps:
        return Adapted(meta_params.params, jnp.zeros((0,)), None)
    parts = inner_parts(loss, inner, meta_params, batch, key, precompute)
    exact = inner.steps if exact_steps is None else exact_steps
    constant = inner.steps - exact
    carry, outputs = parts.start, []
    for gradient, count, first, how in (
        (constant_gradient(parts.loss), constant, 0, ENGINES["reverse"]),
        (exact_gradient(parts.loss, engine), exact, constant, engine),
    ):
        if count:
            step = parts.step_with(gradient)

            def step_and_after(carry, k, step=step):
                carry, value = step(carry, k)
                return carry, (value, after and after(merge(carry[0], parts.frozen), k))

            carry, output = scan(step_and_after, carry, count, first, how)
            outputs.append(output)
    losses, path = jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
    return Adapted(merge(carry[0], parts.frozen), losses, path)


class InnerParts(NamedTuple):
    """The inner loop taken apart.

    Attributes:
      start: the first carry, (adapted weights, state of the optimizer).
      frozen: the weights that do not move.
      rest: all else that the loss depends on.
      loss: loss(adapted, rest, key) -> scalar.
      step_with: step_with(gradient) -> step(carry, k) -> (carry, loss before the step), for
        gradient(adapted, rest, key) -> (loss, gradient in the adapted weights).
    """

    start: tuple[Any, optax.OptState]
    frozen: Params
    rest: Any
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    step_with: Callable[[Callable], Callable]


def inner_parts(
    loss: Loss,
    inner: InnerLoop,
    meta_params: MetaParams,
    batch: Any,
    key: jax.Array,
    precompute: Precompute | None,
) -> InnerParts:
    """What `adapt` scans over; its arguments are those of `adapt`."""
    adapted, frozen = partition(meta_params.params, inner.adapt)
    if precompute is not None:
        batch = precompute(frozen, batch, jax.random.fold_in(key, PRECOMPUTE_STREAM))
    rest = frozen, adapted if inner.proximal else None, batch

    def inner_loss(adapted, rest, key):
        frozen, start, batch = rest
        value = loss(merge(adapted, frozen), batch, key)
        if start is None:
            return value
        return value + inner.proximal / 2 * squared_distance(adapted, start)

    def step_with(gradient):
        def step(carry, k):
            adapted, state = carry
            value, g = gradient(adapted, rest, jax.random.fold_in(key, k))
            updates, state = inner.optimizer.update(g, state, adapted)
            updates = learned.scale(inner.rates, meta_params.rates, updates, k)
            return (optax.apply_updates(adapted, updates), state), value

        return step

    start = adapted, inner.optimizer.init(adapted)
    return InnerParts(start, frozen, rest, inner_loss, step_with)


def squared_distance(x: Params, y: Params) -> jax.Array:
    """|x - y|² over all leaves."""
    return sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True))
