"""Engines: ways to compute exact meta-gradients, equal in value but not in time and memory.

Memory of K inner steps with P adapted weights, where one step's gradient stores T numbers:
    reverse   K (P + T)  plain reverse over reverse
    remat     K P + T    the backward pass computes the step again
    mixed     K P + T'   forward over reverse (MixFlow-MG, arXiv 2505.00793): no second-order tape
Chunks of c steps reduce K P to (K / c + c) P, which is smallest at c = √K, and cost one more
forward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from dsaml_jax.errors import at_least
from dsaml_jax.meta.trees import merge, split_floating

SAVED = "inner_direction"
"""Name of the inner step's direction, which the mixed engine stores because the update needs it
again."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """A way to differentiate the inner loop.

    Attributes:
      mixed: differentiate the inner gradient forward over reverse; plain autodiff for a Newton
        direction.
      rematerialize: compute the inner step again in the backward pass.
      chunk: number of inner steps between stored weights; 0 stores them after every step.

    Raises:
      UserError: `chunk` is negative.
    """

    mixed: bool = False
    rematerialize: bool = True
    chunk: int = 0

    def __post_init__(self):
        at_least("engine.chunk", self.chunk, 0)


ENGINES = {
    "reverse": Engine(rematerialize=False),
    "remat": Engine(),
    "mixed": Engine(mixed=True),
}


class Evaluation(NamedTuple):
    """The inner objective at the weights before a step.

    Attributes:
      value: the objective.
      state: the next state of the support loss.
      gradient: gradient in the adapted weights.
      direction: what the optimizer gets, the gradient or another direction.
    """

    value: jax.Array
    state: Any
    gradient: Any
    direction: Any


InnerLoss = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
"""loss(adapted, rest, key) -> (scalar, state)."""
Evaluate = Callable[[Any, Any, jax.Array], Evaluation]
"""(adapted, rest, key) -> the loss's value, state, gradient in the adapted weights, direction."""


def plain_gradient(loss: InnerLoss) -> Evaluate:
    """Returns `jax.value_and_grad(loss)`, whose derivative is reverse over reverse."""

    def evaluate(adapted, rest, key):
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(adapted, rest, key)
        return Evaluation(value, state, gradient, gradient)

    return evaluate


def mixed_gradient(loss: InnerLoss) -> Evaluate:
    """Returns `jax.value_and_grad(loss)` with a derivative that is forward over reverse.

    With g = ∇_p L(p, r), the cotangent v of g gives (∂²L/∂p² v, ∂²L/∂r∂p v). Since the Hessian is
    symmetric, both are a single directional derivative of p -> ∇_(p,r) L(p, r) along v, so the
    backward pass stores p and r only. Cotangents of the value and of the state are added by
    ordinary reverse mode. The result does not support another forward derivative, and custom
    derivatives in `loss` must be true ones (see `symmetry`).
    """

    @jax.custom_vjp
    def evaluate(adapted, rest, key):
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(adapted, rest, key)
        return value, state, gradient

    def forward(*arguments):
        arguments = jax.tree.map(lambda argument: argument.value, arguments)
        return evaluate(*arguments), arguments

    def backward(residuals, cotangents):
        adapted, rest, key = residuals
        of_value, of_state, of_gradient = cotangents
        smooth, other = split_floating(rest)

        def gradients(adapted):
            def value(adapted, smooth):
                return loss(adapted, merge(smooth, other), key)[0]

            return jax.grad(value, argnums=(0, 1))(adapted, smooth)

        at_adapted, total = jax.jvp(gradients, (adapted,), (_instantiated(of_gradient),))
        if not isinstance(of_value, SymbolicZero):  # an optimizer used the value
            total = jax.tree.map(lambda t, g: t + of_value * g, total, at_adapted)
        of_state, _ = split_floating(of_state)
        if not all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(of_state)):

            def next_state(adapted, smooth):
                return split_floating(loss(adapted, merge(smooth, other), key)[1])[0]

            through_state = jax.vjp(next_state, adapted, smooth)[1](_instantiated(of_state))
            total = jax.tree.map(jnp.add, total, through_state)
        zeros = jax.tree.map(_zero_cotangent, other)
        return total[0], merge(total[1], zeros), _zero_cotangent(key)

    evaluate.defvjp(forward, backward, symbolic_zeros=True)

    def with_direction(adapted, rest, key):
        value, state, gradient = evaluate(adapted, rest, key)
        return Evaluation(value, state, gradient, gradient)

    return with_direction


def scan(step: Callable, carry: Any, inputs: Any, engine: Engine) -> tuple[Any, Any]:
    """Runs `lax.scan` of step(carry, inputs of the step) as `engine` says.

    Args:
      step: step(carry, inputs) -> (carry, output).
      carry: initial carry.
      inputs: inputs of all steps, stacked along the first axis.
      engine: determines rematerialization and chunks.

    Returns:
      The last carry and the stacked outputs.
    """
    if engine.rematerialize:
        policy = jax.checkpoint_policies.save_only_these_names(SAVED) if engine.mixed else None
        step = jax.checkpoint(step, prevent_cse=False, policy=policy)
    count = len(jax.tree.leaves(inputs)[0])
    if not 0 < engine.chunk < count:
        return jax.lax.scan(step, carry, inputs)

    def chunk(carry, inputs):
        return jax.lax.scan(step, carry, inputs)

    whole = count // engine.chunk * engine.chunk
    carry, outputs = jax.lax.scan(
        jax.checkpoint(chunk, prevent_cse=False),
        carry,
        jax.tree.map(lambda x: x[:whole].reshape(-1, engine.chunk, *x.shape[1:]), inputs),
    )
    outputs = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), outputs)
    if whole == count:
        return carry, outputs
    carry, last = jax.lax.scan(step, carry, jax.tree.map(lambda x: x[whole:], inputs))
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, last)


def _instantiated(cotangents: Any) -> Any:
    """Returns cotangents with arrays in place of symbolic zeros."""

    def array(cotangent: Any) -> Any:
        if not isinstance(cotangent, SymbolicZero):
            return cotangent
        like: Any = cotangent.aval
        return jnp.zeros(like.shape, like.dtype)

    return jax.tree.map(array, cotangents)


def _zero_cotangent(leaf: jax.Array) -> np.ndarray:
    """Returns the cotangent of an input without derivatives."""
    return np.zeros(leaf.shape, jax.dtypes.float0)
