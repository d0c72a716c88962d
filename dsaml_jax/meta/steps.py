"""One step of the inner loop, whose direction is a constant for autodiff or differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.meta import rates as learned
from dsaml_jax.meta.directions import evaluation
from dsaml_jax.meta.engines import Engine, Evaluation
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Params, Problem
from dsaml_jax.meta.stream import join_streams, split_streams
from dsaml_jax.meta.symmetry import check_symmetric
from dsaml_jax.meta.trees import as_arrays, merge

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

PRECOMPUTE_STREAM = 2**32 - 1
"""Folded into the inner key for `precompute`; each inner step folds in its step number."""
STATE_STREAM = 2**32 - 2
"""Folded into the inner key for `init_state`."""


class Carry(NamedTuple):
    """What the inner loop carries from step to step.

    Attributes:
      adapted: adapted weights.
      optimizer: state of the inner optimizer.
      state: state of the support loss; None if it has none.
    """

    adapted: Params
    optimizer: optax.OptState
    state: Any


class StepInputs(NamedTuple):
    """What changes from step to step, stacked along a first axis [K].

    Attributes:
      k: number of the step.
      rates: learned rates of the step; None if they are the same in all steps.
      batches: batches of the support's streams.
    """

    k: jax.Array
    rates: learned.Rates
    batches: list[Any]


Step = Callable[[Carry, StepInputs], tuple[Carry, jax.Array]]
"""step(carry, inputs of the step) -> (carry, loss before the step)."""


class InnerParts(NamedTuple):
    """The components of the inner loop.

    Attributes:
      start: initial carry.
      frozen: weights that do not change.
      inputs: what changes from step to step, [K, ...].
      loss: loss(adapted, rest, key) -> (scalar, state).
      rest: rest(carry, inputs of a step) -> all other inputs of the loss.
      step_with: step_with(engine) -> step, whose direction is differentiated by this engine, or is
        a constant for autodiff if the engine is None.
    """

    start: Carry
    frozen: Params
    inputs: StepInputs
    loss: Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
    rest: Callable[[Carry, StepInputs], Any]
    step_with: Callable[[Engine | None], Step]


def inner_parts(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    support: Any,
    key: PRNGKeyArray,
) -> InnerParts:
    """Builds the components of the loop that `adapt` scans over, from the arguments of `adapt`."""
    meta_params = as_arrays(meta_params, "the meta-parameters")
    support = as_arrays(support, "the support")
    adapted, frozen = inner.partition(meta_params.params)
    learned.check(inner.rates, meta_params.rates, adapted, inner.steps)
    start, state = adapted, None
    if problem.init_state is not None:
        with jax.named_scope("init_state"):
            state_key = jax.random.fold_in(key, STATE_STREAM)
            state = problem.init_state(meta_params.params, support, state_key)
            state = as_arrays(state, "the state")
    batch = precomputed(problem, frozen, support, key)
    shared, streams = split_streams(batch, inner.steps)
    optimizer = inner.build_optimizer(frozen)

    @jax.named_scope("support_loss")
    def loss(adapted, rest, key):
        frozen, start, shared, batches, state = rest
        batch = join_streams(shared, batches)
        value, state = problem.support_loss(merge(adapted, frozen), batch, key, state)
        if start is not None:
            value = value + inner.proximal / 2 * squared_distance(adapted, start)
        return value, state

    def rest(carry, inputs):
        return frozen, start if inner.proximal else None, shared, inputs.batches, carry.state

    def step_with(engine: Engine | None) -> Step:
        evaluate = evaluation(inner.direction, loss, engine)

        @jax.named_scope("inner_step")
        def step(carry, inputs):
            others = rest(carry, inputs)
            step_key = jax.random.fold_in(key, inputs.k)
            at: Evaluation = evaluate(carry.adapted, others, step_key)
            updates, optimizer_state = optimizer.update(
                at.direction,
                carry.optimizer,
                carry.adapted,
                value=at.value,
                grad=at.gradient,
                value_fn=lambda adapted: loss(adapted, others, step_key)[0],
            )
            rates = meta_params.rates if inputs.rates is None else inputs.rates
            updates = learned.scale(updates, rates)
            moved = optax.apply_updates(carry.adapted, updates)
            return Carry(moved, optimizer_state, at.state), jax.lax.stop_gradient(at.value)

        return step

    by_step = meta_params.rates if learned.are_by_step(inner.rates) else None
    inputs = StepInputs(jnp.arange(inner.steps), by_step, streams)
    carry = Carry(adapted, optimizer.init(adapted), state)
    return InnerParts(carry, frozen, inputs, loss, rest, step_with)


def check_symmetry(parts: InnerParts, problem: Problem, key: PRNGKeyArray, what: str) -> None:
    """Raises UserError if the support loss has custom derivatives with which `what` is wrong."""
    inputs = jax.tree.map(lambda x: x[0], parts.inputs)
    arguments = parts.start.adapted, parts.rest(parts.start, inputs), key
    check_symmetric(parts.loss, arguments, problem.true_derivatives, what)


def precomputed(problem: Problem, frozen: Params, support: Any, key: PRNGKeyArray) -> Any:
    """Returns the support as the loss gets it, see `Problem.precompute`."""
    if problem.precompute is None:
        return support
    with jax.named_scope("precompute"):
        stream = jax.random.fold_in(key, PRECOMPUTE_STREAM)
        return as_arrays(problem.precompute(frozen, support, stream), "the precomputed support")


def squared_distance(x: Params, y: Params) -> Float[Array, ""]:
    """Returns |x - y|² over all leaves."""
    squares = [jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True)]
    return jnp.asarray(sum(squares))
