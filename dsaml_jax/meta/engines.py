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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    """

    mixed: bool = False
    rematerialize: bool = True
    chunk: int = 0


ENGINES = {
    "reverse": Engine(rematerialize=False),
    "remat": Engine(),
    "mixed": Engine(mixed=True),
}

InnerLoss = Callable[[Any, Any, jax.Array], jax.Array]
"""loss(adapted, rest, key) -> scalar."""
ValueAndDirection = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
"""(adapted, rest, key) -> (loss, its gradient in the adapted weights or another direction)."""


def mixed_gradient(loss: InnerLoss) -> ValueAndDirection:
    """Returns `jax.value_and_grad(loss)` with a derivative that is forward over reverse.

    With g = ∇_p L(p, r), the cotangent v of g gives (∂²L/∂p² v, ∂²L/∂r∂p v). Since the Hessian is
    symmetric, both are a single directional derivative of p -> ∇_(p,r) L(p, r) along v, so the
    backward pass stores p and r only. The result does not support another forward derivative, and
    `loss` must not contain functions with a `custom_vjp` (`custom_jvp` is fine).
    """

    @jax.custom_vjp
    def value_and_gradient(adapted, rest, key):
        return jax.value_and_grad(loss)(adapted, rest, key)

    def forward(adapted, rest, key):
        return value_and_gradient(adapted, rest, key), (adapted, rest, key)

    def backward(residuals, cotangents):
        adapted, rest, key = residuals
        leaves, tree = jax.tree.flatten(rest)
        smooth = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

        def with_smooth(values):
            values = iter(values)
            mixed = [next(values) if s else leaf for s, leaf in zip(smooth, leaves, strict=True)]
            return jax.tree.unflatten(tree, mixed)

        def gradients(adapted):
            def loss_of_smooth(adapted, values):
                return loss(adapted, with_smooth(values), key)

            values = [leaf for s, leaf in zip(smooth, leaves, strict=True) if s]
            return jax.grad(loss_of_smooth, argnums=(0, 1))(adapted, values)

        _, (for_adapted, for_smooth) = jax.jvp(gradients, (adapted,), (cotangents[1],))
        for_smooth = iter(for_smooth)
        for_rest = [
            next(for_smooth) if s else _zero_cotangent(leaf)
            for s, leaf in zip(smooth, leaves, strict=True)
        ]
        return for_adapted, jax.tree.unflatten(tree, for_rest), _zero_cotangent(key)

    value_and_gradient.defvjp(forward, backward)
    return value_and_gradient


def scan(step: Callable, carry: Any, count: int, first: int, engine: Engine) -> tuple[Any, Any]:
    """Runs `lax.scan` of step(carry, k) over k = first ... first + count - 1, as `engine` says.

    Args:
      step: step(carry, k) -> (carry, output).
      carry: initial carry.
      count: number of steps.
      first: first value of k.
      engine: determines rematerialization and chunks.

    Returns:
      The last carry and the stacked outputs.
    """
    if engine.rematerialize:
        policy = jax.checkpoint_policies.save_only_these_names(SAVED) if engine.mixed else None
        step = jax.checkpoint(step, prevent_cse=False, policy=policy)
    steps = first + jnp.arange(count)
    if not 0 < engine.chunk < count:
        return jax.lax.scan(step, carry, steps)

    def chunk(carry, steps):
        return jax.lax.scan(step, carry, steps)

    whole = count // engine.chunk * engine.chunk
    carry, outputs = jax.lax.scan(
        jax.checkpoint(chunk, prevent_cse=False),
        carry,
        steps[:whole].reshape(-1, engine.chunk),
    )
    outputs = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), outputs)
    if whole == count:
        return carry, outputs
    carry, last = jax.lax.scan(step, carry, steps[whole:])
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, last)


def _zero_cotangent(leaf: jax.Array) -> np.ndarray:
    """Returns the cotangent of an input without derivatives."""
    return np.zeros(leaf.shape, jax.dtypes.float0)
