"""Evolution strategies in expectation, against exact gradients, with their intervals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.meta import (
    EvolutionStrategies,
    InnerLoop,
    MetaParams,
    Problem,
    Stream,
    Task,
    Unrolled,
)
from tests.quadratics import PROBLEM, RATE, Quadratic

KEY, STEPS = jax.random.key(0), 6


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def assert_unbiased(samples, exact, precision: float):
    """Checks a mean over samples [S, ...] within 4.5 standard errors, which must be small."""
    samples = np.asarray(samples)
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    assert np.linalg.norm(error) < precision * np.linalg.norm(exact)
    assert (np.abs(samples.mean(0) - exact) < 4.5 * error).all(), (samples.mean(0), exact, error)


@pytest.mark.parametrize("windows", [1, 3])
def test_estimates_on_a_streamed_quadratic_are_unbiased(windows):
    """A quadratic loss is smoothed by a constant: the expectation is the exact gradient.

    In the start it is mean_w (M_1 ... M_w)ᵀ B (θ_w - b) over the windows' ends θ_w.
    """
    tasks = [Quadratic.random(k) for k in range(STEPS)]
    support = Stream((np.stack([t.A for t in tasks]), np.stack([t.a for t in tasks])))
    task, start = Task(support, (tasks[0].B, tasks[0].b)), tasks[0].start
    end, product, exact = start, np.eye(len(start)), 0.0
    for k, t in enumerate(tasks):
        end = end - RATE * t.A @ (end - t.a)
        product = (np.eye(len(start)) - RATE * t.A) @ product
        if (k + 1) % (STEPS // windows) == 0:
            exact += product.T @ tasks[0].B @ (end - tasks[0].b) / windows
    estimator = EvolutionStrategies(0.5, pairs=64, windows=windows, at_once=32)
    inner = InnerLoop(STEPS, optax.sgd(RATE))
    estimate = functools.partial(estimator, PROBLEM, inner, MetaParams(start, {}), task)
    results, gradients = jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 200))
    assert_unbiased(gradients.params, exact, 0.05)
    plain, _ = Unrolled()(PROBLEM, inner, MetaParams(start, {}), task, KEY)
    np.testing.assert_allclose(results.query_loss[0], plain.query_loss)
    np.testing.assert_allclose(results.losses[0], plain.losses)


def logistic(params, batch, key):
    """Returns a loss whose gradient step of rate 1 is the logistic map x' = r x (1 - x)."""
    x, r = params["x"], params["r"]
    return (1 - r) * x**2 / 2 + r * x**3 / 3


CHAOTIC = Problem(logistic, lambda params, batch, key: (params["x"] - batch) ** 2)
STARTING = MetaParams({"x": 0.3, "r": 3.8}, {})


@pytest.mark.parametrize("windows", [1, 4])
def test_estimates_on_a_chaotic_map_are_unbiased(windows):
    """The expectation is that of exact gradients at parameters perturbed window by window."""
    steps, sigma, target, draws = 8, 0.01, 0.5, 200_000
    inner = InnerLoop(steps, optax.sgd(1.0), adapt="x")
    estimator = EvolutionStrategies(sigma, pairs=500, windows=windows)
    estimate = functools.partial(estimator, CHAOTIC, inner, STARTING, Task(0.0, target))
    _, gradients = jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 400))

    def by_hand(params, noise):
        x, total = params["x"] + noise[-1], 0.0
        for k in range(steps):
            window, last = divmod(k, steps // windows)
            r = params["r"] + noise[window]
            x = r * x * (1 - x)
            total += (x - target) ** 2 / windows if last == steps // windows - 1 else 0.0
        return total

    noise = sigma * jax.random.normal(jax.random.key(1), (draws, windows + 1))
    exact = jax.jit(jax.vmap(jax.grad(by_hand), in_axes=(None, 0)))(STARTING.params, noise)
    for name in ("r", "x"):
        estimates, expected = np.asarray(gradients.params[name]), np.asarray(exact[name])
        error = np.hypot(
            estimates.std(ddof=1) / np.sqrt(len(estimates)), expected.std() / np.sqrt(draws)
        )
        print(
            f"{windows} windows, {name}: {estimates.mean():.4f}, exact {expected.mean():.4f}, "
            f"standard error of the difference {error:.4f}, of one exact gradient "
            f"{expected.std():.2f}"
        )
        assert np.abs(estimates.mean() - expected.mean()) < 4.5 * error
        assert name == "x" or error < 0.1 * np.abs(expected.mean())


def test_windows_may_be_run_one_at_a_time_and_start_afresh():
    """`advance` over all windows sums to the estimate; then the particles are as before."""
    estimator = EvolutionStrategies(0.02, pairs=4, windows=5)
    inner = InnerLoop(10, optax.sgd(1.0), adapt="x")
    arguments = CHAOTIC, inner, STARTING, Task(0.0, 0.5), KEY
    _, whole = estimator(*arguments)
    particles, total = estimator.start(*arguments), 0.0
    advance = jax.jit(functools.partial(estimator.advance, *arguments))
    seen = []
    for _ in range(10):
        loss, gradient, particles = advance(particles)
        seen.append(float(loss))
        total += gradient.params["r"] / 10
    np.testing.assert_allclose(total, whole.params["r"], rtol=1e-9)
    np.testing.assert_allclose(seen[:5], seen[5:])


def test_every_meta_parameter_is_estimated_and_losses_need_no_derivative():
    """A step function as query loss, a line search as optimizer, learned rates, an integer."""

    def loss(params, batch, key):
        return jnp.sum((params["w"] - params["goal"]) ** 2)

    problem = Problem(loss, lambda p, b, k: jnp.where(p["w"] > 0, 1.0, 0.0).sum())
    params = {"w": jnp.zeros(2), "goal": jnp.ones(2) / 100, "count": 3}
    inner = InnerLoop(2, optax.lbfgs(), adapt="w", rates="per_tensor")
    start = MetaParams(params, {**params, "w": jnp.ones(()), "goal": None, "count": None})
    estimator = EvolutionStrategies(0.5, pairs=50)
    _, gradient = estimator(problem, inner, start, Task(0.0, 0.0), KEY)
    assert gradient.params["count"] == 0
    assert (gradient.params["goal"] > 0.1).all()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sigma": 0.0}, r"sigma is 0.0; expected a positive"),
        ({"pairs": 0}, r"pairs is 0; expected at least 1"),
        ({"windows": 0}, r"windows is 0; expected at least 1"),
        ({"windows": 4}, r"windows is 4, but inner.steps is 6; expected"),
        ({"at_once": -1}, r"at_once is -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        estimator = EvolutionStrategies(**{"sigma": 0.1, "pairs": 2} | fields)
        inner = InnerLoop(STEPS, optax.sgd(RATE))
        estimator(
            PROBLEM, inner, MetaParams(Quadratic.random(0).start, {}), Quadratic.random(0).task, KEY
        )
