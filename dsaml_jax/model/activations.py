"""Functions whose derivatives are shorter than what tracing them gives.

Exact meta-gradients differentiate a gradient again: every operation saved here is saved four times
over, in time and in compilation. The rules are themselves differentiable, to any order.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def standardize(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """y = (x - mean x) r and r = 1 / sqrt(var x + ε), over the last axis, which r keeps."""
    centered = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt((centered**2).mean(-1, keepdims=True) + epsilon)
    return centered * inverse, inverse


@standardize.defjvp
def _standardize_tangent(epsilon, primals, tangents):
    """dr = -r² mean(y dx); dy = r (dx - mean dx - y mean(y dx))."""
    (x,), (x_dot,) = primals, tangents
    y, inverse = standardize(x, epsilon)
    along = (y * x_dot).mean(-1, keepdims=True)
    y_dot = inverse * (x_dot - x_dot.mean(-1, keepdims=True) - y * along)
    return (y, inverse), (y_dot, -(inverse**2) * along)


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """x Φ(x) with the normal distribution function Φ (Hendrycks & Gimpel 2016), exact."""
    return x * _normal_distribution(x)


@gelu.defjvp
def _gelu_tangent(primals, tangents):
    """(Φ(x) + x φ(x)) dx."""
    (x,), (x_dot,) = primals, tangents
    distribution = _normal_distribution(x)
    density = jnp.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    return x * distribution, (distribution + x * density) * x_dot


def _normal_distribution(x: jax.Array) -> jax.Array:
    return 0.5 * jax.lax.erfc(-x * math.sqrt(0.5))
