"""Operations with custom derivative rules equal plain autodiff, in first and second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.model import activations, dropout
from dsaml_jax.model.lstm import lstm

KEYS = jax.random.split(jax.random.key(3), 4)


def plain_lstm(gates_SRNG, kernel_RHG, unroll):
    hidden = cell = jnp.zeros((*gates_SRNG.shape[1:3], kernel_RHG.shape[1]), gates_SRNG.dtype)
    states = []
    for gates in gates_SRNG:
        i, f, g, o = jnp.split(gates + jnp.einsum("rnh,rhg->rng", hidden, kernel_RHG), 4, -1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        states.append((hidden, cell))
    return tuple(jnp.stack(steps) for steps in zip(*states, strict=True))


def plain_standardize(x, epsilon):
    y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + epsilon)
    return y, 1 / jnp.sqrt(x.var(-1, keepdims=True) + epsilon)


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


def normal(key, *shape):
    return jax.random.normal(key, shape, jnp.float64)


OPERATIONS = {
    "lstm": (
        lambda gates, kernel: lstm(gates, kernel, 2),
        lambda gates, kernel: plain_lstm(gates, kernel, 2),
        ((5, 2, 3, 8), (2, 2, 8)),
    ),
    "standardize": (
        lambda x: activations.standardize(x, 1e-5),
        lambda x: plain_standardize(x, 1e-5),
        ((3, 7),),
    ),
    "gelu": (activations.gelu, exact_gelu, ((40,),)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_gradients_and_their_derivatives_equal_plain_autodiff(name):
    ours, plain, shapes = OPERATIONS[name]
    with jax.enable_x64(True):
        x = tuple(normal(k, *shape) for k, shape in zip(KEYS, shapes, strict=False))
        along = tuple(normal(k, *shape) for k, shape in zip(KEYS[2:], shapes, strict=False))

        def numbers(function):
            def scalar(x):
                return sum(jnp.sum(jnp.sin(out)) for out in jax.tree.leaves(function(*x)))

            def slope(x):
                return jax.jvp(scalar, (x,), (along,))[1]

            gradient = jax.grad(scalar)
            forward_over_reverse = jax.jvp(gradient, (x,), (along,))[1]
            return function(*x), gradient(x), forward_over_reverse, jax.grad(slope)(x)

        result, expected = (jax.jit(numbers, static_argnums=0)(f) for f in (ours, plain))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), result, expected
        )


def test_dropout_keeps_the_mean_and_draws_independent_masks():
    first, second = dropout.factors(KEYS[0], 0.25, [(200, 100), (100, 200)], jnp.float32)
    for factors in (first, second):
        assert set(np.unique(factors)) == {np.float32(0), np.float32(1 / 0.75)}
        # Within five standard deviations of the mean of 20 000 draws.
        assert float(factors.mean()) == pytest.approx(1, abs=5 * (0.25 / 0.75 / 20_000) ** 0.5)
    agree = float(jnp.mean((first.ravel() > 0) == (second.ravel() > 0)))
    assert agree == pytest.approx(0.75**2 + 0.25**2, abs=0.02)
    assert dropout.factors(KEYS[0], 0.0, [(3,)], jnp.float32)[0].tolist() == [1, 1, 1]
