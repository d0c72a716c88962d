"""Truncated, annealed, Reptile and implicit meta-gradients against closed forms, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.meta import (
    Annealed,
    Implicit,
    InnerLoop,
    MetaParams,
    Problem,
    Reptile,
    Task,
    TaskResult,
    Unrolled,
)
from dsaml_jax.meta.finite import finiteness, nonfinite_message
from tests.quadratics import PROBLEM, RATE, SIZE, Quadratic, estimate

KEY = jax.random.key(0)
STEPS = 6
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("last", [1, 2, 5])
def test_truncated_gradient_has_one_factor_per_exact_step(last):
    task = Quadratic.random(0)
    gradient = estimate(Unrolled(last), task, STEPS)[1].params
    close(gradient, task.shrink(last).T @ task.query_gradient(STEPS))


def test_annealed_switches_from_first_order_to_exact():
    task = Quadratic.random(1)
    at = functools.partial(estimate, Annealed(0.5), task, STEPS)
    close(at(0.49)[1].params, task.query_gradient(STEPS))
    close(at(0.5)[1].params, task.shrink(STEPS).T @ task.query_gradient(STEPS))


def test_annealed_runs_one_branch_for_many_tasks_and_compiles_once():
    task, traced = Quadratic.random(1), 0

    @jax.jit
    def gradients(progress):
        nonlocal traced
        traced += 1
        one = functools.partial(Annealed(0.5), PROBLEM, InnerLoop(STEPS, optax.sgd(RATE)))
        tasks = jax.tree.map(lambda x: jnp.stack([x, x]), task.task)
        meta_params = MetaParams(jnp.asarray(task.start), {})
        keys = jax.random.split(KEY)
        return jax.vmap(one, in_axes=(None, 0, 0, None))(meta_params, tasks, keys, progress)[
            1
        ].params

    assert " cond[" in str(jax.make_jaxpr(gradients)(0.0))
    before, after = gradients(0.4), gradients(0.6)
    assert traced == 1
    close(before[1], task.query_gradient(STEPS))
    close(after[0], task.shrink(STEPS).T @ task.query_gradient(STEPS))


def test_reptile_moves_toward_the_adapted_weights():
    """Outer SGD of rate ε moves θ by ε (θ_K - θ), independently of the query."""
    task = Quadratic.random(2)
    result, gradient = estimate(Reptile(), task, STEPS)
    close(gradient.params, task.start - task.after(STEPS))
    close(result.query_loss, estimate(Unrolled(0), task, STEPS)[0].query_loss)
    outer = optax.sgd(0.3)
    updates, _ = outer.update(gradient.params, outer.init(task.start))
    close(optax.apply_updates(task.start, updates), 0.7 * task.start + 0.3 * task.after(STEPS))
    other = dataclasses.replace(task, b=task.b + 1)
    close(estimate(Reptile(), other, STEPS)[1].params, gradient.params)


def test_implicit_has_the_proximal_closed_form():
    """φ* = (A + λ)⁻¹ (A a + λ θ), so dL/dθ = λ (A + λ)⁻¹ B (φ* - b)."""
    task, strength = Quadratic.random(3), 0.7
    result, gradient = estimate(
        Implicit(solver_steps=50, tolerance=1e-14), task, 1500, proximal=strength
    )
    system = task.A + strength * np.eye(SIZE)
    end = np.linalg.solve(system, task.A @ task.a + strength * task.start)
    expected = strength * np.linalg.solve(system, task.B @ (end - task.b))
    close(gradient.params, expected)
    assert result.numbers["residual"] < 1e-10 and result.numbers["stationarity"] < 1e-10
    # It is also the limit of unrolling ...
    unrolled = estimate(Unrolled(), task, 1500, proximal=strength)[1].params
    close(unrolled, expected)
    # ... and stopping early shows in the numbers.
    result, rough = estimate(Implicit(solver_steps=1), task, 5, proximal=strength)
    assert result.numbers["residual"] > 1e-2 and result.numbers["stationarity"] > 1e-2
    assert np.linalg.norm(rough.params - expected) > 1e-2 * np.linalg.norm(expected)


def test_implicit_differentiates_frozen_weights_and_precomputed_features():
    """Compares with the exact derivative of a converged inner loop."""

    def loss(params, batch, key):
        features, y = batch
        return jnp.sum((features @ params["head"] - y) ** 2) / 2

    def precompute(frozen, batch, key):
        return jnp.tanh(batch[0] @ frozen["encoder"]), batch[1]

    def query_loss(params, batch, key):
        return loss(params, precompute(params, batch, key), key), None

    problem = Problem(loss, query_loss, precompute)
    rng = np.random.default_rng(0)
    params = {"encoder": rng.normal(size=(3, 2)), "head": rng.normal(size=2)}
    task = Task(*((rng.normal(size=(4, 3)), rng.normal(size=4)) for _ in range(2)))
    inner = InnerLoop(800, optax.sgd(0.1), adapt=("head",), proximal=0.5)
    arguments = problem, inner, MetaParams(params, {}), task, KEY
    _, implicit = Implicit(solver_steps=20, tolerance=1e-14)(*arguments)
    _, exact = Unrolled()(*arguments)
    jax.tree.map(close, implicit.params, exact.params)


def test_estimators_give_different_gradients():
    task = Quadratic.random(4)
    strength = {"proximal": 0.5}
    gradients = {
        name: estimate(estimator, task, STEPS, 0.9, **strength)[1].params
        for name, estimator in {
            "first order": Unrolled(0),
            "truncated": Unrolled(2),
            "exact": Unrolled(),
            "annealed, before": Annealed(0.95),
            "multi-step": Unrolled(multi_step_until=1.0),
            "reptile": Reptile(),
            "implicit": Implicit(),
        }.items()
    }
    names = list(gradients)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            distance = np.linalg.norm(gradients[one] - gradients[other])
            same = {one, other} == {"first order", "annealed, before"}
            assert (distance < 1e-12) == same, (one, other)


def test_nonfinite_message_names_task_and_the_module_nearest_to_the_loss():
    nan = np.nan
    gradients = MetaParams(
        {
            "encoder": {"kernel": np.array([[1.0], [nan], [2.0]])},
            "head": {"bias": np.array([1.0, nan, 3.0]), "kernel": np.ones((3, 2, 2))},
        },
        {},
    )

    def message(losses, query_loss):
        result = TaskResult(jnp.asarray(query_loss), jnp.asarray(losses), None, {})
        finite = jax.vmap(finiteness)(result, jax.tree.map(jnp.asarray, gradients))
        return nonfinite_message(finite, estimator="mine", step=7, order=("encoder", "head"))

    losses = np.ones((3, 2))
    assert message(losses, np.ones(3)).startswith(
        "Step 7: the mine meta-gradient of task 1 of 3 is not finite, first in params/head/bias "
        "(2 of 3 tensors; its losses are finite"
    )
    assert "its query loss after adaptation is not" in message(losses, np.array([1, nan, 1]))
    losses[1, 1] = np.inf
    assert "support loss is not finite from inner step 1 on" in message(losses, np.ones(3))
    gradients = jax.tree.map(np.nan_to_num, gradients)
    assert message(np.ones((3, 2)), np.ones(3)) is None
