"""Meta-gradients against closed forms, and against finite differences on the real model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsaml_jax.meta import Task, adapt, task_loss
from dsaml_jax.model import DSAMLConfig, initialize
from dsaml_jax.objective import Batch, dsaml_loss

SIZE, RATE = 5, 0.07
TINY = DSAMLConfig(
    dim=8,
    heads=2,
    layers=1,
    feed_forward=8,
    local_width=1,
    global_width=3,
    lstm_dim=4,
    lstm_unroll=1,
    predictor_dim=4,
    dropout=0.2,
    dtype="float64",
    param_dtype="float64",
)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def quadratic(seed: int):
    """Support (θ-a)ᵀA(θ-a)/2, query (θ-b)ᵀB(θ-b)/2 with positive definite A and B, and a θ_0."""
    rng = np.random.default_rng(seed)
    factor_a, factor_b = rng.normal(size=(2, SIZE, SIZE)) / np.sqrt(SIZE)
    a, b, start = rng.normal(size=(3, SIZE))
    return factor_a @ factor_a.T, a, factor_b @ factor_b.T, b, start


def quadratic_loss(params, batch, key):
    matrix, centre = batch
    difference = params - centre
    return difference @ matrix @ difference / 2


def meta_gradient(task, start, steps, estimator):
    def loss(params):
        return task_loss(
            quadratic_loss,
            lambda *arguments: (quadratic_loss(*arguments), None),
            optax.sgd(RATE),
            params,
            task,
            jax.random.key(0),
            steps=steps,
            estimator=estimator,
        )[0]

    return jax.grad(loss)(start)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 8]))
def test_maml_on_quadratics_has_its_closed_form(seed, steps):
    A, a, B, b, start = quadratic(seed)
    task = Task((A, a), (B, b))
    M = np.linalg.matrix_power(np.eye(SIZE) - RATE * A, steps)
    end = a + M @ (start - a)
    adapted, losses = adapt(
        quadratic_loss, optax.sgd(RATE), start, (A, a), jax.random.key(0), steps=steps
    )
    np.testing.assert_allclose(adapted, end, rtol=0, atol=1e-10)
    assert losses.shape == (steps,)
    np.testing.assert_allclose(losses[0], (start - a) @ A @ (start - a) / 2, atol=1e-10)
    exact = meta_gradient(task, start, steps, "second_order")
    np.testing.assert_allclose(exact, M.T @ B @ (end - b), rtol=0, atol=1e-10)
    first = meta_gradient(task, start, steps, "first_order")
    np.testing.assert_allclose(first, B @ (end - b), rtol=0, atol=1e-10)
    assert np.linalg.norm(exact - first) > 1e-3 * np.linalg.norm(first)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_learned_inner_rate_has_its_closed_form(steps):
    A, a, _, _, start = quadratic(0)

    def query(rate):
        adapted, _ = adapt(
            quadratic_loss, optax.sgd(rate), start, (A, a), jax.random.key(0), steps=steps
        )
        return adapted

    shrink = np.eye(SIZE) - RATE * A
    expected = -steps * A @ np.linalg.matrix_power(shrink, steps - 1) @ (start - a)
    np.testing.assert_allclose(jax.jacobian(query)(RATE), expected, rtol=0, atol=1e-10)


def test_no_steps_leave_the_weights():
    A, a, _, _, start = quadratic(1)
    adapted, losses = adapt(
        quadratic_loss, optax.adam(1.0), start, (A, a), jax.random.key(0), steps=0
    )
    np.testing.assert_array_equal(adapted, start)
    assert losses.shape == (0,)


@pytest.mark.parametrize("optimizer", [optax.sgd(RATE, momentum=0.9), optax.adam(0.01)])
def test_any_optax_optimizer_runs_the_inner_loop(optimizer):
    A, a, _, _, start = quadratic(2)
    params, state = jnp.asarray(start), optimizer.init(jnp.asarray(start))
    for _ in range(4):
        updates, state = optimizer.update(A @ (params - a), state, params)
        params = optax.apply_updates(params, updates)
    adapted, _ = adapt(quadratic_loss, optimizer, start, (A, a), jax.random.key(0), steps=4)
    np.testing.assert_allclose(adapted, params, rtol=0, atol=1e-10)


def random_batch(key, clips: int, segments: int = 6) -> Batch:
    keys = jax.random.split(key, 3)
    return Batch(
        log_mel=jax.random.normal(keys[0], (clips, segments, 5, 8)),
        embedding=jax.random.normal(keys[1], (clips, TINY.dim)),
        curve=jax.random.uniform(keys[2], (clips, segments, 2), minval=-1.0),
        valid=jnp.ones((clips, segments), bool),
        statistics={},
    )


def model_task_loss(estimator):
    loss = dsaml_loss(TINY, train=True)
    return jax.jit(
        functools.partial(
            task_loss,
            lambda *arguments: loss(*arguments)[0],
            loss,
            optax.sgd(0.1),
            steps=2,
            estimator=estimator,
        )
    )


@pytest.fixture(scope="module")
def model_task():
    with jax.enable_x64(True):
        params = initialize(TINY, jax.random.key(0), (5, 8), TINY.dim)["params"]
        keys = jax.random.split(jax.random.key(1))
        return params, Task(random_batch(keys[0], 1), random_batch(keys[1], 2))


def test_second_order_on_the_model_meets_finite_differences(model_task):
    params, task = model_task
    key = jax.random.key(2)
    loss = model_task_loss("second_order")
    gradient = jax.jit(jax.grad(lambda p: loss(p, task, key)[0]))(params)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    direction = jax.tree.unflatten(
        tree, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
    step = 1e-5

    def at(side):
        moved = jax.tree.map(lambda p, d: p + side * step * d, params, direction)
        return float(loss(moved, task, key)[0])

    numeric = (at(1) - at(-1)) / (2 * step)
    exact = sum(
        float(jnp.vdot(g, d))
        for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    assert abs(numeric - exact) <= 1e-4 * abs(exact)


def test_first_order_is_the_plain_gradient_at_the_adapted_weights(model_task):
    params, task = model_task
    key = jax.random.key(2)
    first = jax.jit(jax.grad(lambda p: model_task_loss("first_order")(p, task, key)[0]))(params)
    second = jax.jit(jax.grad(lambda p: model_task_loss("second_order")(p, task, key)[0]))(params)
    loss = dsaml_loss(TINY, train=True)
    inner_key, query_key = jax.random.split(key)
    adapted, _ = jax.jit(
        lambda p: adapt(
            lambda *arguments: loss(*arguments)[0],
            optax.sgd(0.1),
            p,
            task.support,
            inner_key,
            steps=2,
        )
    )(params)
    plain = jax.jit(jax.grad(lambda p: loss(p, task.query, query_key)[0]))(adapted)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), first, plain)
    norm = optax.global_norm(first)
    apart = optax.global_norm(jax.tree.map(jnp.subtract, first, second))
    assert apart > 1e-2 * norm
