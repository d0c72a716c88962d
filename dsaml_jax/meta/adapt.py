"""The inner loop: K optimizer steps from shared weights to the weights of one task.

A loss is any pure function `loss(params, batch, key) -> scalar`; the loop is differentiable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.errors import UserError, at_least, one_of
from dsaml_jax.meta import rates as learned
from dsaml_jax.meta.directions import DIRECTIONS, check_size, value_and_direction
from dsaml_jax.meta.engines import ENGINES, Engine, scan
from dsaml_jax.meta.subset import merge, partition

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

Params = Any
Loss = Callable[[Params, Any, jax.Array], jax.Array]
Precompute = Callable[[Params, Any, jax.Array], Any]

PRECOMPUTE_STREAM = 2**32 - 1
"""Folded into the inner key for `precompute`; each inner step folds in its step number."""


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """The settings of adaptation to a task.

    Attributes:
      steps: number of inner steps, K >= 0.
      optimizer: any optax transformation; its state is initialized anew for every task.
      adapt: path patterns of the adapted weights (see `subset.partition`); the rest is frozen.
      rates: which inner rates are learned, one of `rates.RATES`.
      proximal: λ >= 0; the loop minimizes loss(φ) + λ/2 |φ - θ|² over the adapted weights φ.
      direction: what the optimizer gets, one of `directions.DIRECTIONS`: the gradient g of this
        objective, or Newton's H⁻¹ g.

    Raises:
      UserError: a value is out of range.
    """

    steps: int
    optimizer: optax.GradientTransformation
    adapt: tuple[str, ...] = ("*",)
    rates: str = "fixed"
    proximal: float = 0.0
    direction: str = "gradient"

    def __post_init__(self):
        at_least("inner.steps", self.steps, 0)
        one_of("inner.rates", self.rates, learned.RATES)
        at_least("inner.proximal", self.proximal, 0)
        one_of("inner.direction", self.direction, DIRECTIONS)

    def partition(self, params: Params) -> tuple[Params, Params]:
        """Splits `params` into (adapted, frozen).

        Raises:
          UserError: a pattern matches no weight, or there are too many adapted ones for `newton`.
        """
        adapted, frozen = partition(params, self.adapt)
        check_size(self.direction, adapted)
        return adapted, frozen

    def initial_rates(self, params: Params) -> learned.Rates:
        """Returns the rates before meta-training: multipliers of 1, or {} if rates are fixed."""
        return learned.initial_rates(self.rates, self.partition(params)[0], self.steps)


class MetaParams(NamedTuple):
    """The meta-parameters.

    Attributes:
      params: shared weights θ, from which adaptation starts.
      rates: learned inner rates; {} if they are fixed.
    """

    params: Params
    rates: learned.Rates


class Adapted(NamedTuple):
    """The result of the inner loop.

    Attributes:
      params: all weights after the last step, θ_K.
      losses: inner objective before each step, [K], without derivatives.
      path: outputs of `after`, stacked to [K, ...]; None if there is no `after`.
    """

    params: Params
    losses: Float[Array, " steps"]
    path: Any


def adapt(
    loss: Loss,
    inner: InnerLoop,
    meta_params: MetaParams,
    batch: Any,
    key: PRNGKeyArray,
    *,
    precompute: Precompute | None = None,
    exact_steps: int | None = None,
    engine: Engine = ENGINES["remat"],
    after: Callable[[Params, jax.Array], Any] | None = None,
) -> Adapted:
    """Runs θ_(k+1) = θ_k + m_k ∘ update(g_k), g_k = ∇ loss(θ_k, batch, key_k), for k < K.

    Autodiff always goes through the update, including the rates m. Derivatives of g_k are exact,
    dg_k/dθ_k = ∇² loss(θ_k), in the last `exact_steps` steps; earlier steps treat g_k as a
    constant. Thus K gives exact MAML (Finn et al. 2017) and 0 its first-order approximation. The
    same holds for Newton's direction in place of g_k.

    Args:
      loss: support loss.
      inner: settings of the loop.
      meta_params: θ_0 and the rates.
      batch: support, passed to `loss`.
      key: random key; each step folds in its step number.
      precompute: precompute(frozen, batch, key) -> batch, called once before the loop with the
        frozen weights (None in place of adapted ones); `loss` gets the batch that it returns. It
        computes what depends on frozen weights only, such as features of a frozen encoder, once
        instead of in every step, and draws its randomness once per task. It is differentiated.
      exact_steps: number of exactly differentiated steps, 0 to K; None for K.
      engine: how exact steps are differentiated.
      after: after(θ_(k+1), k) -> any pytree, called after every step.

    Returns:
      The adapted weights, the loss before each step, and the outputs of `after`.

    Raises:
      UserError: `exact_steps` is not in 0 to K, or the rates are not those of the loop.
    """
    exact = inner.steps if exact_steps is None else exact_steps
    if not 0 <= exact <= inner.steps:
        raise UserError(f"exact_steps is {exact}; expected 0 to inner.steps = {inner.steps}.")
    if not inner.steps:
        return Adapted(meta_params.params, jnp.zeros((0,)), None)
    parts = inner_parts(loss, inner, meta_params, batch, key, precompute)
    constant = inner.steps - exact
    carry, outputs = parts.start, []
    for differentiated, count, first, segment_engine in (
        (None, constant, 0, ENGINES["reverse"]),
        (engine, exact, constant, engine),
    ):
        if count:
            step = parts.step_with(differentiated)

            def step_and_after(carry, k, step=step):
                carry, value = step(carry, k)
                return carry, (value, after and after(merge(carry[0], parts.frozen), k))

            carry, output = scan(step_and_after, carry, count, first, segment_engine)
            outputs.append(output)
    losses, path = jax.tree.map(lambda *segments: jnp.concatenate(segments), *outputs)
    return Adapted(merge(carry[0], parts.frozen), losses, path)


Carry = tuple[Any, optax.OptState]
"""(adapted weights, optimizer state)."""
Step = Callable[[Carry, jax.Array], tuple[Carry, jax.Array]]
"""step(carry, k) -> (carry, loss before the step)."""


class InnerParts(NamedTuple):
    """The components of the inner loop.

    Attributes:
      start: initial carry, (adapted weights, optimizer state).
      frozen: weights that do not change.
      rest: all other inputs of the loss.
      loss: loss(adapted, rest, key) -> scalar.
      step_with: step_with(engine) -> step, whose direction is differentiated by this engine, or is
        a constant for autodiff if the engine is None.
    """

    start: Carry
    frozen: Params
    rest: Any
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    step_with: Callable[[Engine | None], Step]


def inner_parts(
    loss: Loss,
    inner: InnerLoop,
    meta_params: MetaParams,
    batch: Any,
    key: PRNGKeyArray,
    precompute: Precompute | None,
) -> InnerParts:
    """Builds the components of the loop that `adapt` scans over, from the arguments of `adapt`."""
    adapted, frozen = inner.partition(meta_params.params)
    learned.check(inner.rates, meta_params.rates, adapted, inner.steps)
    if precompute is not None:
        with jax.named_scope("precompute"):
            batch = precompute(frozen, batch, jax.random.fold_in(key, PRECOMPUTE_STREAM))
    rest = frozen, adapted if inner.proximal else None, batch

    @jax.named_scope("support_loss")
    def inner_loss(adapted, rest, key):
        frozen, start, batch = rest
        value = loss(merge(adapted, frozen), batch, key)
        if start is None:
            return value
        return value + inner.proximal / 2 * squared_distance(adapted, start)

    def step_with(engine: Engine | None) -> Step:
        direction = value_and_direction(inner.direction, inner_loss, engine)

        @jax.named_scope("inner_step")
        def step(carry, k):
            adapted, state = carry
            value, d = direction(adapted, rest, jax.random.fold_in(key, k))
            updates, state = inner.optimizer.update(d, state, adapted)
            updates = learned.scale(inner.rates, meta_params.rates, updates, k)
            return (optax.apply_updates(adapted, updates), state), value

        return step

    start = adapted, inner.optimizer.init(adapted)
    return InnerParts(start, frozen, rest, inner_loss, step_with)


def squared_distance(x: Params, y: Params) -> Float[Array, ""]:
    """Returns |x - y|² over all leaves."""
    squares = [jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True)]
    return jnp.asarray(sum(squares))
