"""Inner optimizers that can be differentiated twice."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class AdamState(NamedTuple):
    """Attributes: count: steps taken; mean, square: moving averages of g and g²."""

    count: jax.Array
    mean: optax.Updates
    square: optax.Updates


def safe_adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) whose derivative is finite where a gradient is exactly zero.

    u = -α m̂ / (√v̂ + ε). d√v̂/dg is ∞ · 0 = NaN at v̂ = 0, so `optax.adam` turns the meta-gradient
    of every weight into NaN as soon as one weight has had no gradient (a dead unit, an unused row).
    Here such a weight has u = 0 with derivative 0; elsewhere values and derivatives are Adam's.
    They are large where 0 < |g| << ε, up to 1 / ε: an inner Adam is better off with an ε of 1e-5
    to 1e-3.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(gradient, state, params=None):
        del params
        count = state.count + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, gradient)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.square, gradient)

        def direction(m, v):
            steps = count.astype(v.dtype)
            moved = v > 0
            root = jnp.sqrt(jnp.where(moved, v, 1.0) / (1 - b2**steps))
            return jnp.where(moved, -learning_rate * m / (1 - b1**steps) / (root + eps), 0.0)

        return jax.tree.map(direction, mean, square), AdamState(count, mean, square)

    return optax.GradientTransformation(init, update)
