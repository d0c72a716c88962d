"""Streamed supports and carried state against closed forms, in float64, by all engines."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.meta import (
    ENGINES,
    Annealed,
    Engine,
    InnerLoop,
    MetaParams,
    Problem,
    Reptile,
    Stream,
    Task,
    Unrolled,
    adapt,
)
from dsaml_jax.meta.diagnostics import asymmetry, diagnose
from dsaml_jax.meta.diagnostics.path import inner_path
from dsaml_jax.meta.schedules import multi_step_weights
from tests.quadratics import PROBLEM, RATE, SIZE, Quadratic

KEY, STEPS = jax.random.key(0), 5
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)
EXACT = [
    Unrolled(engine=dataclasses.replace(engine, chunk=chunk))
    for engine in ENGINES.values()
    for chunk in (0, 2)
]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def streamed(seed: int):
    """Returns K quadratics with one query, as (tasks, support, query)."""
    tasks = [Quadratic.random(seed + k) for k in range(STEPS)]
    batches = np.stack([t.A for t in tasks]), np.stack([t.a for t in tasks])
    return tasks, Stream(batches), (tasks[0].B, tasks[0].b)


def path_of(tasks, start, rates=1.0):
    """Returns θ_0 ... θ_K and the factors I - α m_k A_k of a streamed loop."""
    multipliers = np.broadcast_to(rates, STEPS)
    path, factors = [start], []
    for task, m in zip(tasks, multipliers, strict=True):
        path.append(path[-1] - RATE * m * task.A @ (path[-1] - task.a))
        factors.append(np.eye(SIZE) - RATE * m * task.A)
    return path, factors


def test_a_streamed_support_has_its_closed_form_by_all_estimators_and_engines():
    """θ_(k+1) = θ_k - α m_k A_k (θ_k - a_k); step k uses batch k."""
    tasks, support, (matrix, center) = streamed(0)
    rates = np.linspace(0.5, 1.5, STEPS)
    path, factors = path_of(tasks, tasks[0].start, rates)
    at_end = matrix @ (path[-1] - center)
    inner = InnerLoop(STEPS, optax.sgd(RATE), rates="per_tensor_and_step")
    start, task = MetaParams(tasks[0].start, rates), Task(support, (matrix, center))
    adjoints = [at_end]
    for factor in factors[::-1]:
        adjoints.insert(0, factor.T @ adjoints[0])
    slopes = [-RATE * t.A @ (x - t.a) for t, x in zip(tasks, path, strict=False)]
    by_rates = [s @ v for s, v in zip(slopes, adjoints[1:], strict=True)]
    for estimator in EXACT:
        result, gradient = estimator(PROBLEM, inner, start, task, KEY)
        close(gradient.params, adjoints[0])
        close(gradient.rates, by_rates)
        close(result.losses[3], (path[3] - tasks[3].a) @ tasks[3].A @ (path[3] - tasks[3].a) / 2)
    for estimator, expected in (
        (Unrolled(0), at_end),
        (Unrolled(2), adjoints[STEPS - 2]),
        (Annealed(0.5), adjoints[0]),
    ):
        close(estimator(PROBLEM, inner, start, task, KEY, 0.7)[1].params, expected)
    fixed = dataclasses.replace(inner, rates="fixed")
    plain, _ = path_of(tasks, tasks[0].start)
    _, gradient = Reptile()(PROBLEM, fixed, MetaParams(tasks[0].start, {}), task, KEY)
    close(gradient.params, plain[0] - plain[-1])
    path_gradients = inner_path(PROBLEM, inner, start, task, KEY, iterations=2).gradients
    close(path_gradients, np.stack(adjoints))
    assert asymmetry(PROBLEM, inner, start, support, KEY) < 1e-12


def test_a_stream_may_be_a_part_of_the_support_such_as_the_number_of_the_step():
    def loss(params, batch, key):
        return params["w"] * batch["chunks"] * batch["shared"] ** batch["k"]

    support = {
        "chunks": Stream(jnp.arange(1.0, 6.0)),
        "shared": 2.0,
        "k": Stream(jnp.arange(5)),
    }
    problem = Problem(loss, loss)
    adapted = adapt(problem, InnerLoop(5, optax.sgd(1.0)), MetaParams({"w": 0.0}, {}), support, KEY)
    close(adapted.params["w"], -sum((k + 1) * 2.0**k for k in range(5)))


def moving(params, batch, key, state):
    """Returns (θ-s)ᵀA(θ-s)/2 and the moving average s' = β s + (1-β) θ, with a counter."""
    matrix, decay = batch
    center, count = state
    difference = params["w"] - center
    following = decay * center + (1 - decay) * params["w"]
    return difference @ matrix @ difference / 2, (following, count + 1)


def moving_query(params, query, key, state):
    matrix, target = query
    difference = params["w"] + state[0] - target
    return difference @ matrix @ difference / 2, state[1]


STATEFUL = Problem(moving, moving_query, init_state=lambda params, support, key: (params["s"], 0))


def test_carried_state_has_its_closed_form_by_all_engines():
    """The pair (θ, s) moves linearly, by one matrix; the query sees its last state."""
    task, decay = Quadratic.random(3), 0.8
    identity = np.eye(SIZE)
    step = np.block(
        [[identity - RATE * task.A, RATE * task.A], [(1 - decay) * identity, decay * identity]]
    )
    start = np.concatenate([task.start, task.a])
    end = np.linalg.matrix_power(step, STEPS) @ start
    at_end = task.B @ (end[:SIZE] + end[SIZE:] - task.b)
    expected = np.linalg.matrix_power(step, STEPS).T @ np.tile(at_end, 2)
    inner = InnerLoop(STEPS, optax.sgd(RATE), adapt="w")
    meta_params = MetaParams({"w": task.start, "s": task.a}, {})
    data = Task((task.A, decay), (task.B, task.b))
    for estimator in EXACT:
        result, gradient = estimator(STATEFUL, inner, meta_params, data, KEY)
        assert result.auxiliary == STEPS
        close(gradient.params["w"], expected[:SIZE])
        close(gradient.params["s"], expected[SIZE:])
    # First order takes gradients and states for constants, so the first state has no gradient.
    _, gradient = Unrolled(0)(STATEFUL, inner, meta_params, data, KEY)
    close(gradient.params["w"], at_end)
    close(gradient.params["s"], 0.0)
    # Two exact steps carry gradients back to θ and s before them; then s is a constant.
    _, gradient = Unrolled(2)(STATEFUL, inner, meta_params, data, KEY)
    two = np.linalg.matrix_power(step, 2).T @ np.tile(at_end, 2)
    close(gradient.params["w"], two[:SIZE])
    close(gradient.params["s"], 0.0)
    path = inner_path(STATEFUL, inner, meta_params, data, KEY, iterations=2)
    close(path.gradients["w"][0], expected[:SIZE])
    adapted = adapt(STATEFUL, inner, meta_params, data.support, KEY)
    close(adapted.params["w"], end[:SIZE])
    close(adapted.state[0], end[SIZE:])
    assert adapted.state[1] == STEPS
    none = adapt(STATEFUL, InnerLoop(0, optax.sgd(RATE), adapt="w"), meta_params, data.support, KEY)
    close(none.state[0], task.a)


def test_state_and_streams_are_mapped_over_tasks_and_used_by_multi_step_losses_and_diagnoses():
    """Step k moves (θ, s) by a matrix S_k of its own decay; all losses count."""
    task, decays = Quadratic.random(4), np.linspace(0.1, 0.9, STEPS)
    one = Task((task.A, Stream(decays)), (task.B, task.b))
    inner = InnerLoop(STEPS, optax.sgd(RATE), adapt="w")
    meta_params = MetaParams({"w": task.start, "s": task.a}, {})
    product, state, expected = np.eye(2 * SIZE), np.concatenate([task.start, task.a]), 0.0
    for decay, weight in zip(decays, multi_step_weights(0.3, STEPS, 1.0), strict=True):
        identity = np.eye(SIZE)
        top = [identity - RATE * task.A, RATE * task.A]
        product = np.block([top, [(1 - decay) * identity, decay * identity]]) @ product
        at = product @ state
        expected += weight * product.T @ np.tile(task.B @ (at[:SIZE] + at[SIZE:] - task.b), 2)
    tasks = jax.tree.map(lambda x: np.stack([x, x]), one)
    keys = jax.random.split(KEY)
    estimator = Unrolled(engine=Engine(mixed=True, chunk=2), multi_step_until=1.0)
    estimate = functools.partial(estimator, STATEFUL, inner, meta_params)
    _, both = jax.jit(jax.vmap(estimate, in_axes=(0, 0, None)))(tasks, keys, 0.3)
    close(both.params["w"], np.stack([expected[:SIZE]] * 2))
    close(both.params["s"], np.stack([expected[SIZE:]] * 2))
    diagnosed = functools.partial(diagnose, STATEFUL, inner, meta_params, iterations=3)
    assert np.isfinite(jax.jit(diagnosed)(tasks, keys).step_cosine).all()
