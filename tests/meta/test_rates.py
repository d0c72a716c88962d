"""Learned inner rates against closed forms, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.meta import ENGINES, InnerLoop, MetaParams, Problem, Unrolled, adapt, rates
from tests.quadratics import PROBLEM, RATE, SIZE, Quadratic, estimate

EXACT, FIRST = Unrolled(), Unrolled(exact_steps=0)
KEY = jax.random.key(0)
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_learned_inner_rate_has_its_closed_form(steps):
    task = Quadratic.random(0)

    def end(rate):
        inner = InnerLoop(steps, optax.sgd(rate))
        return adapt(PROBLEM, inner, MetaParams(task.start, {}), task.task.support, KEY).params

    expected = -steps * task.A @ task.shrink(steps - 1) @ (task.start - task.a)
    close(jax.jacobian(end)(RATE), expected)
    per_tensor = estimate(EXACT, task, steps, rates="per_tensor")[1].rates
    close(per_tensor, RATE * expected @ task.query_gradient(steps))


def test_rates_per_weight_are_meta_sgd():
    """θ' = θ - α m ∘ g, so that the gradient in m is -α g ∘ ∇L_query(θ')."""
    task = Quadratic.random(1)
    _, gradient = estimate(EXACT, task, 1, rates="per_weight")
    g = task.A @ (task.start - task.a)
    close(gradient.rates, -RATE * g * task.query_gradient(1))
    inner = InnerLoop(1, optax.sgd(RATE), rates="per_weight")
    rates = np.array([1.0, 0.0, -2.0, 0.5, 3.0])
    moved = adapt(PROBLEM, inner, MetaParams(task.start, rates), task.task.support, KEY).params
    close(moved, task.start - RATE * rates * g)


def test_rates_per_tensor_and_step_have_their_closed_form():
    """dL/dm_k = -α g_k · (M^(K-1-k))ᵀ B (θ_K - b); first order omits the power of M."""
    task, steps = Quadratic.random(2), 3
    for estimator, exact in ((EXACT, 1), (FIRST, 0)):
        _, gradient = estimate(estimator, task, steps, rates="per_tensor_and_step")
        expected = [
            -RATE
            * (task.A @ (task.after(k) - task.a))
            @ task.shrink(exact * (steps - 1 - k)).T
            @ task.query_gradient(steps)
            for k in range(steps)
        ]
        close(gradient.rates, expected)


def test_rates_per_weight_and_step_are_those_of_unrolled_sgd():
    """θ_(k+1) = θ_k - α m_k ∘ g_k, so that dL/dm_k = -α g_k ∘ λ_(k+1) with the adjoint
    λ_K = B (θ_K - b), λ_k = λ_(k+1) - α A (m_k ∘ λ_(k+1))."""
    task, steps = Quadratic.random(6), 3
    multipliers = np.random.default_rng(0).normal(1.0, 0.5, size=(steps, SIZE))
    path, slopes = [task.start], []
    for m in multipliers:
        slopes.append(task.A @ (path[-1] - task.a))
        path.append(path[-1] - RATE * m * slopes[-1])
    adjoint, expected = task.B @ (path[-1] - task.b), []
    for m, g in zip(multipliers[::-1], slopes[::-1], strict=True):
        expected.insert(0, -RATE * g * adjoint)
        adjoint = adjoint - RATE * task.A @ (m * adjoint)
    inner = InnerLoop(steps, optax.sgd(RATE), rates="per_weight_and_step")
    assert inner.initial_rates(task.start).shape == (steps, SIZE)
    meta_params = MetaParams(task.start, jnp.asarray(multipliers))
    close(adapt(PROBLEM, inner, meta_params, task.task.support, KEY).params, path[-1])
    for engine in ENGINES.values():
        _, gradient = Unrolled(engine=engine)(PROBLEM, inner, meta_params, task.task, KEY)
        close(gradient.rates, expected)
        close(gradient.params, adjoint)


@pytest.mark.parametrize("kind", ["per_tensor_and_step", "per_weight_and_step"])
def test_rates_of_a_longer_loop_repeat_those_of_the_last_step(kind):
    task = Quadratic.random(7)
    inner = InnerLoop(3, optax.sgd(RATE), rates=kind)
    trained = inner.initial_rates(task.start) * np.arange(1.0, 4.0).reshape(
        -1, *[1] * (kind == "per_weight_and_step")
    )
    longer = InnerLoop(5, optax.sgd(RATE), rates=kind)
    for other in (longer, InnerLoop(2, optax.sgd(RATE), rates=kind)):
        with pytest.raises(
            UserError, match=rf"for 3 inner steps, but inner.steps is {other.steps}"
        ):
            adapt(PROBLEM, other, MetaParams(task.start, trained), task.task.support, KEY)
    end = task.start
    for m in (1.0, 2.0, 3.0, 3.0, 3.0):
        end = end - RATE * m * task.A @ (end - task.a)
    meta_params = MetaParams(task.start, rates.extend(trained, 5))
    close(adapt(PROBLEM, longer, meta_params, task.task.support, KEY).params, end)
    for wrong in (jnp.ones(()), trained):
        with pytest.raises(UserError, match="cannot be extended to 2 inner steps"):
            rates.extend(wrong, 2)


@pytest.mark.parametrize("kind", rates.RATES)
@pytest.mark.parametrize("given", rates.RATES)
def test_rates_of_another_kind_are_refused(kind, given):
    params = {"a": np.ones((2, 4)), "b": np.ones(5)}
    support = {"a": np.zeros((2, 4)), "b": np.zeros(5)}

    def distance(params, batch, key):
        return sum(jnp.sum((params[name] - batch[name]) ** 2) for name in params)

    problem = Problem(distance, distance)

    def run():
        learned = InnerLoop(3, optax.sgd(RATE), rates=given).initial_rates(params)
        inner = InnerLoop(3, optax.sgd(RATE), rates=kind)
        return adapt(problem, inner, MetaParams(params, learned), support, KEY)

    if kind == given:
        run()
    else:
        with pytest.raises(UserError, match=f"inner.rates is '{kind}'"):
            run()
