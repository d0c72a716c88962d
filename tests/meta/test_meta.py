"""Meta-gradients against closed forms and hand-computed steps, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsaml_jax.errors import UserError
from dsaml_jax.meta import (
    ENGINES,
    InnerLoop,
    MetaParams,
    Problem,
    Task,
    Unrolled,
    adapt,
    safe_adam,
    subset,
)
from dsaml_jax.meta.schedules import multi_step_weights
from tests.quadratics import PROBLEM, RATE, Quadratic, estimate, loss

EXACT, FIRST = Unrolled(), Unrolled(exact_steps=0)
KEY = jax.random.key(0)
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 8]))
def test_maml_on_quadratics_has_its_closed_form(seed, steps):
    task = Quadratic.random(seed)
    result, exact = estimate(EXACT, task, steps)
    adapted = adapt(
        PROBLEM,
        InnerLoop(steps, optax.sgd(RATE)),
        MetaParams(task.start, {}),
        task.task.support,
        KEY,
    )
    close(adapted.params, task.after(steps))
    assert result.losses.shape == (steps,)
    close(result.losses[0], loss(task.start, task.task.support, None))
    close(result.query_loss, loss(task.after(steps), task.task.query, None))
    close(exact.params, task.shrink(steps).T @ task.query_gradient(steps))
    first = estimate(FIRST, task, steps)[1].params
    close(first, task.query_gradient(steps))
    assert np.linalg.norm(exact.params - first) > 1e-3 * np.linalg.norm(first)


def test_multi_step_loss_has_its_closed_form_and_schedule():
    task, steps = Quadratic.random(3), 4
    for progress, horizon in ((0.0, 1.0), (0.25, 0.5), (0.9, 0.5)):
        weights = multi_step_weights(progress, steps, horizon)
        close(weights.sum(), 1.0)
        gradient = estimate(Unrolled(multi_step_until=horizon), task, steps, progress)[1].params
        expected = sum(
            w * task.shrink(k + 1).T @ task.query_gradient(k + 1) for k, w in enumerate(weights)
        )
        close(gradient, expected)
    close(multi_step_weights(0.0, steps, 1.0), np.full(steps, 1 / steps))
    close(multi_step_weights(0.25, steps, 0.5), [0.125, 0.125, 0.125, 0.625])
    close(multi_step_weights(0.9, steps, 0.5), [0, 0, 0, 1])


@pytest.mark.parametrize(("steps", "exact_steps"), [(3, 4), (3, -1), (0, 1)])
def test_exact_steps_that_the_loop_does_not_have_are_refused(steps, exact_steps):
    with pytest.raises(UserError, match=f"exact_steps is {exact_steps}; expected 0 to .* {steps}"):
        estimate(Unrolled(exact_steps), Quadratic.random(0), steps)


def test_zero_steps_leave_the_weights_unchanged():
    task = Quadratic.random(1)
    result, gradient = estimate(EXACT, task, 0)
    assert result.losses.shape == (0,)
    close(gradient.params, task.B @ (task.start - task.b))


@pytest.mark.parametrize("optimizer", [optax.sgd(RATE, momentum=0.9), optax.adam(0.01)])
def test_any_optax_optimizer_runs_the_inner_loop(optimizer):
    task = Quadratic.random(2)
    params, state = jnp.asarray(task.start), optimizer.init(jnp.asarray(task.start))
    for _ in range(4):
        updates, state = optimizer.update(task.A @ (params - task.a), state, params)
        params = optax.apply_updates(params, updates)
    adapted = adapt(
        PROBLEM, InnerLoop(4, optimizer), MetaParams(task.start, {}), task.task.support, KEY
    )
    close(adapted.params, params)


def test_safe_adam_is_adam_with_finite_derivatives_at_zero_gradients():
    task = Quadratic.random(4)

    def padded(matrix, center):
        """Returns the same quadratic with one more weight that has no effect."""
        return np.pad(matrix, (0, 1)), np.append(center, 0.0)

    def gradient(optimizer, task, start):
        return EXACT(PROBLEM, InnerLoop(3, optimizer), MetaParams(start, {}), task, KEY)[1].params

    dead = Task(padded(*task.task.support), padded(*task.task.query))
    start = np.append(task.start, 0.3)
    adam = gradient(optax.adam(0.1), task.task, task.start)
    safe = gradient(safe_adam(0.1), dead, start)
    np.testing.assert_allclose(safe[:-1], adam, rtol=1e-9)
    assert safe[-1] == 0.0
    assert np.isnan(gradient(optax.adam(0.1), dead, start)).any()


def linear_loss(params, batch, key):
    """Returns (v w x - y)²/2 for an encoder w and a head v."""
    x, y = batch
    return (params["head"] * params["encoder"] * x - y) ** 2 / 2


@pytest.mark.parametrize(("estimator", "exact"), [(EXACT, 1), (FIRST, 0)])
@pytest.mark.parametrize("encoded_once", [False, True])
def test_an_anil_step_has_its_closed_form(estimator, exact, encoded_once):
    w, v, rate, (x, y), (xq, yq) = 0.8, -0.6, 0.3, (1.5, 0.7), (-1.1, 0.4)
    problem = Problem(linear_loss, lambda *arguments: (linear_loss(*arguments), None))
    if encoded_once:

        def head_loss(params, batch, key):
            feature, y = batch
            return (params["head"] * feature - y) ** 2 / 2

        def precompute(frozen, batch, key):
            assert frozen["head"] is None
            return frozen["encoder"] * batch[0], batch[1]

        problem = Problem(head_loss, problem.query_loss, precompute)
    inner = InnerLoop(1, optax.sgd(rate), adapt=("head",))
    meta_params = MetaParams({"encoder": jnp.asarray(w), "head": jnp.asarray(v)}, {})
    result, gradient = estimator(problem, inner, meta_params, Task((x, y), (xq, yq)), KEY)
    v1 = v - rate * w * x * (v * w * x - y)
    error = v1 * w * xq - yq
    close(result.query_loss, error**2 / 2)
    close(gradient.params["head"], error * w * xq * (1 - exact * rate * (w * x) ** 2))
    by_v1 = -rate * (2 * v * w * x**2 - x * y)
    close(gradient.params["encoder"], error * xq * (v1 + exact * w * by_v1))


def test_engines_agree_on_subsets_and_rates():
    """Differentiates frozen weights and rates by all engines; batches contain integers."""

    def indexed_loss(params, batch, key):
        x, index = batch
        noise = jax.random.normal(key, ())
        hidden = jnp.tanh(params["encoder"] * x)
        return jnp.sum((params["head"] * hidden - noise)[index] ** 3)

    problem = Problem(indexed_loss, lambda *arguments: (indexed_loss(*arguments), None))
    inner = InnerLoop(5, optax.sgd(0.1), adapt=("head",), rates="per_weight", proximal=0.3)
    rng = np.random.default_rng(0)
    params = {"encoder": rng.normal(size=4), "head": rng.normal(size=4)}
    meta_params = MetaParams(params, inner.initial_rates(params))
    index = np.array([0, 2, 3])
    task = Task((rng.normal(size=4), index), (rng.normal(size=4), index))
    gradients = {
        (name, chunk): Unrolled(engine=dataclasses.replace(ENGINES[name], chunk=chunk))(
            problem, inner, meta_params, task, KEY
        )[1]
        for name in ENGINES
        for chunk in (0, 2)
    }
    plain = gradients["reverse", 0]
    for gradient in gradients.values():
        jax.tree.map(close, gradient, plain)
    first = FIRST(problem, inner, meta_params, task, KEY)[1]
    assert abs(first.params["encoder"] - plain.params["encoder"]).max() > 1e-3


def test_subsets_are_selected_by_path_pattern():
    params = {"a": {"norm": 1.0, "kernel": 2.0}, "b": {"kernel": 3.0}}
    adapted, frozen = subset.partition(params, ("*kernel",))
    assert adapted == {"a": {"norm": None, "kernel": 2.0}, "b": {"kernel": 3.0}}
    assert frozen == {"a": {"norm": 1.0, "kernel": None}, "b": {"kernel": None}}
    assert subset.merge(adapted, frozen) == params
    assert subset.partition(params, ("a",)) == subset.partition(params, ("a/*",))
    assert subset.is_whole(params) and not subset.is_whole(adapted)
    with pytest.raises(UserError, match=r"'a/kernle' matches none .* did you mean 'a/kernel'\?"):
        subset.partition(params, ("b", "a/kernle"))
