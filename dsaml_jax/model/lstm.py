"""Long short-term memory (Hochreiter & Schmidhuber 1997) with a custom derivative rule.

With gates in the order i, f, g, o and a_t = x_t + h_(t-1) W, where x_t is the input's contribution:
    c_t = σ(f) c_(t-1) + σ(i) tanh(g)
    h_t = σ(o) tanh(c_t)
The derivative of the loop by autodiff multiplies by W, accumulates a gradient of W's size in every
time step, and carries a dozen arrays through the loop. The rule below does most of this for all
time steps at once and leaves one product with W and a few multiplications in the loop, both in the
tangent and, by transposition, in the gradient, to any order.

Axes: S time steps, R independent recurrences (directions), N clips, H width, G = 4 H gates.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def lstm(
    gates_SRNG: Float[Array, "segments directions clips gates"],
    kernel_RHG: Float[Array, "directions hidden gates"],
    unroll: int,
) -> tuple[
    Float[Array, "segments directions clips hidden"],
    Float[Array, "segments directions clips hidden"],
]:
    """Returns hidden and cell states [S, R, N, H], starting from zeros.

    Args:
      gates_SRNG: the input's contribution x to the gates, including biases.
      kernel_RHG: recurrent weights W.
      unroll: number of time steps per iteration of the loop.
    """

    def step(carry, gates):
        hidden, cell = carry
        i, f, g, o = activations(gates + hidden @ kernel_RHG)
        cell = f * cell + i * g
        hidden = o * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell)

    return _scan(step, gates_SRNG, gates_SRNG, kernel_RHG, unroll)


@lstm.defjvp
def _lstm_tangent(unroll, primals, tangents):
    """Computes the tangents of both states.

    da_t = dx_t + h_(t-1) dW + dh_(t-1) W
    dc_t = f dc_(t-1) + slopes · (di, df, dg)
    dh_t = tanh(c_t) do + o tanh'(c_t) dc_t
    """
    gates, kernel = primals
    gates_dot, kernel_dot = tangents
    hidden, cell = lstm(gates, kernel, unroll)
    hidden_before, cell_before = (_delay(x) for x in (hidden, cell))
    i, f, g, o = activations(gates + hidden_before @ kernel)
    squashed = jnp.tanh(cell)
    slopes = jnp.concatenate(
        [g * i * (1 - i), cell_before * f * (1 - f), i * (1 - g**2), squashed * o * (1 - o)],
        axis=-1,
    )
    through_cell = o * (1 - squashed**2)
    driven = gates_dot + hidden_before @ kernel_dot

    def step(carry, inputs):
        hidden_dot, cell_dot = carry
        driven, slopes, forget, through_cell = inputs
        i_dot, f_dot, g_dot, o_dot = jnp.split(slopes * (driven + hidden_dot @ kernel), 4, -1)
        cell_dot = forget * cell_dot + i_dot + f_dot + g_dot
        hidden_dot = o_dot + through_cell * cell_dot
        return (hidden_dot, cell_dot), (hidden_dot, cell_dot)

    tangent = _scan(step, (driven, slopes, f, through_cell), gates, kernel, unroll)
    return (hidden, cell), tangent


def activations(gates: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns σ(i), σ(f), tanh(g), σ(o), each [..., H], of gates [..., 4 H]."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _scan(step, inputs, gates: jax.Array, kernel: jax.Array, unroll: int):
    start = jnp.zeros((*gates.shape[1:-1], kernel.shape[-2]), gates.dtype)
    return jax.lax.scan(step, (start, start), inputs, unroll=unroll)[1]


def _delay(x: jax.Array) -> jax.Array:
    """Returns x_(t-1), with zeros at the first step."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
