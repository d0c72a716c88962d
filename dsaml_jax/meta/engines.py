"""Engines: how exact meta-gradients are computed. They differ in time and memory, not in value.

Memory of K inner steps of P adapted weights, where T is what one step's gradient stores:
    reverse   K (P + T)  plain reverse over reverse
    remat     K P + T    the step is computed again in the backward pass
    mixed     K P + T'   forward over reverse (MixFlow-MG, arXiv 2505.00793): no second-order tape
With chunks of c steps, K P becomes (K / c + c) P, least at c = √K, for one more pass forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

SAVED = "inner_gradient"
"""Name of the inner gradient, which the mixed engine keeps where the update needs it again."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Attributes:
    mixed: differentiate the inner gradient forward over reverse.
    rematerialize: compute the inner step again in the backward pass.
    chunk: inner steps between stored weights; 0 stores them after every step.
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
ValueAndGradient = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]


def exact_gradient(loss: InnerLoss, engine: Engine) -> ValueAndGradient:
    """(adapted, rest, key) -> (loss, ∇_adapted loss), the gradient differentiable in both.

    The value is only reported: it has no derivative.
    """
    gradient = mixed_gradient(loss) if engine.mixed else jax.value_and_grad(loss)

    def value_and_gradient(adapted, rest, key):
        value, g = gradient(adapted, rest, key)
        return jax.lax.stop_gradient(value), checkpoint_name(g, SAVED)

    return value_and_gradient


def constant_gradient(loss: InnerLoss) -> ValueAndGradient:
    """The same values, as constants: what first-order estimators take the gradient for."""

    def value_and_gradient(adapted, rest, key):
        # Stopped inputs, too: nothing is stored for a derivative that nobody takes.
        adapted, rest = jax.lax.stop_gradient((adapted, rest))
        return jax.lax.stop_gradient(jax.value_and_grad(loss)(adapted, rest, key))

    return value_and_gradient


def mixed_gradient(loss: InnerLoss) -> ValueAndGradient:
    """`jax.value_and_grad(loss)` whose own derivative is forward over reverse.

    With g = ∇_p L(p, r), the cotangent v of g gives (∂²L/∂p² v, ∂²L/∂r∂p v): as the Hessian is
    symmetric, both are the ONE derivative of p -> ∇_(p,r) L(p, r) along v. So the backward pass
    keeps p and r alone. The result cannot be differentiated forward again, and `loss` must not
    contain functions with a `custom_vjp` of their own (`custom_jvp` is fine).
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
            def of(adapted, values):
                return loss(adapted, with_smooth(values), key)

            values = [leaf for s, leaf in zip(smooth, leaves, strict=True) if s]
            return jax.grad(of, argnums=(0, 1))(adapted, values)

        _, (along, across) = jax.jvp(gradients, (adapted,), (cotangents[1],))
        across = iter(across)
        none = [next(across) if s else _zero(leaf) for s, leaf in zip(smooth, leaves, strict=True)]
        return along, jax.tree.unflatten(tree, none), _zero(key)

    value_and_gradient.defvjp(forward, backward)
    return value_and_gradient


def scan(step: Callable, carry: Any, count: int, first: int, engine: Engine) -> tuple[Any, Any]:
    """`lax.scan` of step(carry, k) over `count` steps k from `first`, stored as `engine` says."""
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


def _zero(leaf: jax.Array) -> np.ndarray:
    """The cotangent of what has no derivative."""
    return np.zeros(leaf.shape, jax.dtypes.float0)
