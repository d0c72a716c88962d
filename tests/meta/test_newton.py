"""Newton's direction and the proximal term against closed forms, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.meta import (
    ENGINES,
    Annealed,
    Implicit,
    InnerLoop,
    MetaParams,
    Problem,
    Reptile,
    Task,
    Unrolled,
    adapt,
)
from dsaml_jax.meta.diagnostics.path import inner_path
from dsaml_jax.meta.directions import NEWTON_AT_MOST
from tests.quadratics import PROBLEM, RATE, SIZE, Quadratic, estimate

KEY = jax.random.key(0)
LAMBDA = 0.7
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)
newton = functools.partial(estimate, rate=1.0, direction="newton")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_one_newton_step_from_any_start_is_the_minimizer():
    task = Quadratic.random(0)
    for start in (task.start, 100.0 * np.arange(SIZE)):
        moved = dataclasses.replace(task, start=start)
        result, gradient = newton(Unrolled(), moved, 1)
        close(result.query_loss, (task.a - task.b) @ task.B @ (task.a - task.b) / 2)
        close(gradient.params, 0.0)  # the minimizer does not depend on the start
        close(newton(Unrolled(0), moved, 1)[1].params, task.B @ (task.a - task.b))


def test_every_estimator_solves_the_proximal_problem_in_one_newton_step():
    """φ* = (A + λ)⁻¹ (A a + λ θ), so that dL/dθ = λ (A + λ)⁻¹ B (φ* - b)."""
    task = Quadratic.random(3)
    system = task.A + LAMBDA * np.eye(SIZE)
    end = np.linalg.solve(system, task.A @ task.a + LAMBDA * task.start)
    at_end = task.B @ (end - task.b)
    exact = LAMBDA * np.linalg.solve(system, at_end)
    for estimator, expected in (
        *((Unrolled(engine=engine), exact) for engine in ENGINES.values()),
        (Annealed(0.5), exact),
        (Implicit(solver_steps=50, tolerance=1e-14), exact),
        (Unrolled(0), at_end),
        (Reptile(), task.start - end),
    ):
        result, gradient = newton(estimator, task, 1, proximal=LAMBDA)
        close(result.query_loss, (end - task.b) @ task.B @ (end - task.b) / 2)
        close(gradient.params, expected)


def test_bayesian_linear_regression_has_the_textbook_posterior_and_its_derivatives():
    """m_N = S⁻¹ (τ Φᵀ y + λ m_0), S = τ Φᵀ Φ + λ I (Bishop 2006, 3.53); its derivatives by hand.

    With u = S⁻¹ ∇L_query and the residual r = y - Φ m_N, those of the query loss are λ u in m_0,
    τ uᵀ Φᵀ r in log τ, and τ (r uᵀ - Φ u m_Nᵀ) in Φ.
    """

    def loss(params, batch, key):
        (residual,) = batch - params["design"] @ params["head"]
        return jnp.exp(params["log_precision"]) / 2 * jnp.sum(residual**2)

    def query_loss(params, batch, key):
        design, y = batch
        return jnp.sum((design @ params["head"] - y) ** 2) / 2, params["head"]

    rng = np.random.default_rng(0)
    design, y, prior, log_precision = (
        rng.normal(size=(4, 3)),
        rng.normal(size=4),
        rng.normal(size=3),
        0.4,
    )
    query = rng.normal(size=(6, 3)), rng.normal(size=6)
    params = {"head": prior, "design": design, "log_precision": jnp.asarray(log_precision)}
    inner = InnerLoop(1, optax.sgd(1.0), adapt=("head",), proximal=LAMBDA, direction="newton")
    result, gradient = Unrolled()(
        Problem(loss, query_loss), inner, MetaParams(params, {}), Task(y[None], query), KEY
    )
    precision = np.exp(log_precision)
    system = precision * design.T @ design + LAMBDA * np.eye(3)
    mean = np.linalg.solve(system, precision * design.T @ y + LAMBDA * prior)
    close(result.auxiliary, mean)
    u = np.linalg.solve(system, query[0].T @ (query[0] @ mean - query[1]))
    residual = y - design @ mean
    close(gradient.params["head"], LAMBDA * u)
    close(gradient.params["log_precision"], precision * u @ design.T @ residual)
    close(
        gradient.params["design"],
        precision * (np.outer(residual, u) - np.outer(design @ u, mean)),
    )


def convex(params, batch, key):
    """Returns Σ log cosh(s X φ - y), strictly convex in φ, for φ in two tensors and a scale s."""
    x, y = batch
    flat = jnp.concatenate([params["a"], params["b"].ravel()])
    return jnp.sum(jnp.log(jnp.cosh(params["scale"] * (x @ flat) - y)))


CONVEX = Problem(convex, lambda *arguments: (convex(*arguments), None))


def convex_example():
    """Returns (params, task) for `CONVEX`."""
    rng = np.random.default_rng(1)
    params = {"a": rng.normal(size=2), "b": rng.normal(size=(1, 2)), "scale": jnp.asarray(0.8)}
    return params, Task(*((rng.normal(size=(7, 4)), rng.normal(size=7)) for _ in range(2)))


def test_newton_steps_of_a_convex_loss_equal_steps_by_hand():
    """g = s Xᵀ tanh(r) + λ (φ - θ), H = s² Xᵀ diag(1 - tanh² r) X + λ I, at rate 0.9."""
    params, task = convex_example()
    steps, rate = 3, 0.9
    x, y = task.support

    def by_hand(params):
        start = jnp.concatenate([params["a"], params["b"].ravel()])
        end, s = start, params["scale"]
        for _ in range(steps):
            slope = jnp.tanh(s * (x @ end) - y)
            g = s * x.T @ slope + LAMBDA * (end - start)
            hessian = s**2 * (x.T * (1 - slope**2)) @ x + LAMBDA * jnp.eye(4)
            end = end - rate * jnp.linalg.solve(hessian, g)
        return params | {"a": end[:2], "b": end[2:].reshape(1, 2)}

    inner = InnerLoop(steps, optax.sgd(rate), adapt=("a", "b"), proximal=LAMBDA, direction="newton")
    adapted = adapt(CONVEX, inner, MetaParams(params, {}), task.support, KEY).params
    jax.tree.map(close, adapted, by_hand(params))
    _, gradient = Unrolled()(CONVEX, inner, MetaParams(params, {}), task, KEY)
    expected = jax.grad(lambda params: convex(by_hand(params), task.query, KEY))(params)
    jax.tree.map(close, gradient.params, expected)
    assert abs(expected["scale"]) > 1e-3
    path = inner_path(CONVEX, inner, MetaParams(params, {}), task, KEY, iterations=2)
    close(path.losses, Unrolled()(CONVEX, inner, MetaParams(params, {}), task, KEY)[0].losses)


def test_engines_agree_on_newton_steps_of_a_batch_of_tasks():
    params, task = convex_example()
    inner = InnerLoop(
        4,
        optax.sgd(0.5),
        adapt=("a", "b"),
        rates="per_weight_and_step",
        proximal=LAMBDA,
        direction="newton",
    )
    meta_params = MetaParams(params, inner.initial_rates(params))
    tasks = jax.tree.map(lambda x: np.stack([x, 2 * x]), task)

    def gradients(engine):
        one = functools.partial(Unrolled(engine=engine), CONVEX, inner, meta_params)
        return jax.jit(jax.vmap(one, in_axes=(0, None)))(tasks, KEY)[1]

    plain = gradients(ENGINES["reverse"])
    _, single = Unrolled()(CONVEX, inner, meta_params, task, KEY)
    jax.tree.map(lambda batch, one: close(batch[0], one), plain, single)
    for name in ("remat", "mixed"):
        for chunk in (0, 3):
            engine = dataclasses.replace(ENGINES[name], chunk=chunk)
            jax.tree.map(close, gradients(engine), plain)


@pytest.mark.parametrize("eigenvalue", [0.0, -1.0])
def test_an_objective_without_a_minimizer_gives_nan_unless_the_proximal_term_bounds_it(eigenvalue):
    matrix = np.diag([2.0, eigenvalue])
    inner = InnerLoop(1, optax.sgd(1.0), direction="newton")
    arguments = MetaParams(np.ones(2), {}), (matrix, np.zeros(2)), KEY
    assert np.isnan(adapt(PROBLEM, inner, *arguments).params).all()
    bounded = dataclasses.replace(inner, proximal=1.5)
    close(adapt(PROBLEM, bounded, *arguments).params, 1.5 / (np.diag(matrix) + 1.5))


def test_the_proximal_term_is_that_of_the_unrolled_loop():
    """φ_(k+1) = φ_k - α (A (φ_k - a) + λ (φ_k - θ)) and its derivative in θ."""
    task, steps = Quadratic.random(5), 4
    end, jacobian = task.start, np.eye(SIZE)
    for _ in range(steps):
        end = end - RATE * (task.A @ (end - task.a) + LAMBDA * (end - task.start))
        jacobian = jacobian - RATE * (task.A + LAMBDA * np.eye(SIZE)) @ jacobian
        jacobian = jacobian + RATE * LAMBDA * np.eye(SIZE)
    at_end = task.B @ (end - task.b)
    for engine in ENGINES.values():
        result, gradient = estimate(Unrolled(engine=engine), task, steps, proximal=LAMBDA)
        close(result.query_loss, (end - task.b) @ at_end / 2)
        close(gradient.params, jacobian.T @ at_end)
    close(estimate(Unrolled(0), task, steps, proximal=LAMBDA)[1].params, at_end)


@pytest.mark.parametrize(
    ("estimator", "learns"),
    [
        (Unrolled(), True),
        (Unrolled(1), True),
        (Unrolled(0), False),
        (Annealed(0.5), True),
        (Reptile(), False),
        (Implicit(), True),
    ],
)
@pytest.mark.parametrize("direction", ["gradient", "newton"])
def test_parameters_of_the_support_loss_have_a_gradient(estimator, learns, direction):
    def loss(params, batch, key):
        return params["scale"] * jnp.sum(jnp.cosh(params["head"] - batch))

    problem = Problem(loss, lambda params, batch, key: (jnp.sum(params["head"] * batch), None))
    params = {"scale": jnp.asarray(0.5), "head": jnp.ones(2)}
    inner = InnerLoop(2, optax.sgd(0.5), adapt=("head",), proximal=1.0, direction=direction)
    task = Task(jnp.array([0.3, -0.2]), jnp.array([1.0, 2.0]))
    gradient = estimator(problem, inner, MetaParams(params, {}), task, KEY, 1.0)[1]
    assert (abs(gradient.params["scale"]) > 1e-3) == learns


def test_too_many_values_and_unknown_directions_are_refused():
    params = {"few": np.ones(3), "many": np.ones((64, 65))}
    inner = InnerLoop(1, optax.sgd(1.0), direction="newton")
    sentence = f"inner.adapt selects 4163; adapt at most {NEWTON_AT_MOST}, or set inner.direction"
    with pytest.raises(UserError, match=sentence):
        adapt(PROBLEM, inner, MetaParams(params, {}), None, KEY)
    with pytest.raises(UserError, match=sentence):
        inner.initial_rates(params)
    assert dataclasses.replace(inner, adapt=("few",)).partition(params)[0]["many"] is None
    for fields, expected in (
        ({"direction": "newtom"}, "did you mean 'newton'"),
        ({"proximal": -1.0}, "inner.proximal is -1.0"),
        ({"steps": -1}, "inner.steps is -1"),
        ({"rates": "per_wait"}, "did you mean 'per_weight'"),
    ):
        with pytest.raises(UserError, match=expected):
            dataclasses.replace(inner, **fields)
