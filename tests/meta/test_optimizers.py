"""`safe`: inner optimizers with finite derivatives, schedules, half precision, extra arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.meta import (
    ENGINES,
    Implicit,
    InnerLoop,
    MetaParams,
    Problem,
    Reptile,
    Unrolled,
    adapt,
    safe_adam,
)
from tests.optimizers import check
from tests.quadratics import PROBLEM, Quadratic

KEY = jax.random.key(0)
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("optimizer", "removed"),
    [
        (optax.adamw(0.1), 6),
        (optax.lamb(0.1), 12),
        (optax.radam(0.1), 6),
        (optax.adafactor(0.1), 12),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)), 6),
        (optax.contrib.muon(0.1), 6),
        (optax.polyak_sgd(), 6),
        (optax.sgd(0.1), 0),
    ],
)
def test_safe_changes_no_finite_number_and_leaves_no_other(optimizer, removed):
    """`python -m tests.optimizers` checks all of optax."""
    assert check(optimizer) == removed


def test_safe_refuses_matrix_decompositions():
    with pytest.raises(UserError, match=r"the matrix decomposition '(qr|svd|eigh|geqrf)'"):
        check(optax.contrib.galore(0.1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_half_precision_weights_move_as_single_ones_do(dtype):
    def loss(params, batch, key):
        return jnp.sum((params - batch) ** 2)

    start = MetaParams(jnp.ones(3, dtype), {})
    inner = InnerLoop(10, safe_adam(0.0625))
    adapted = adapt(Problem(loss, loss), inner, start, jnp.zeros(3, dtype), KEY)
    assert adapted.params.dtype == dtype
    np.testing.assert_allclose(adapted.params.astype(float), 1 - 0.0625 * 10, atol=0.03)


def test_schedules_are_accepted():
    schedule = optax.cosine_decay_schedule(0.1, 5)
    task = Quadratic.random(0)
    ends = [
        adapt(PROBLEM, InnerLoop(4, o), MetaParams(task.start, {}), task.task.support, KEY).params
        for o in (safe_adam(schedule), optax.adam(schedule))
    ]
    close(*ends)


def test_polyak_steps_are_differentiated_by_all_engines():
    """The rate is L / |g|², so the value's derivative counts: compares with steps by hand."""
    task, steps = Quadratic.random(1), 3

    def by_hand(start):
        x = start
        for _ in range(steps):
            g = task.A @ (x - task.a)
            x = x - (x - task.a) @ g / 2 / (g @ g) * g
        return (x - task.b) @ task.B @ (x - task.b) / 2

    expected = jax.grad(by_hand)(jnp.asarray(task.start))
    inner = InnerLoop(steps, optax.polyak_sgd(max_learning_rate=1e3, eps=0.0))
    for engine in ENGINES.values():
        estimator = Unrolled(engine=engine)
        _, gradient = estimator(PROBLEM, inner, MetaParams(task.start, {}), task.task, KEY)
        np.testing.assert_allclose(gradient.params, expected, rtol=1e-9)


def test_line_searches_run_where_the_loop_is_not_differentiated():
    task, start = Quadratic.random(2), MetaParams(Quadratic.random(2).start, {})
    inner = InnerLoop(12, optax.lbfgs(), proximal=0.5)
    adapted = adapt(PROBLEM, inner, start, task.task.support, KEY)
    system = task.A + 0.5 * np.eye(len(task.a))
    end = np.linalg.solve(system, task.A @ task.a + 0.5 * task.start)
    np.testing.assert_allclose(adapted.params, end, atol=1e-6)
    for estimator, expected in (
        (Reptile(), task.start - end),
        (Implicit(30, 1e-12), 0.5 * np.linalg.solve(system, task.B @ (end - task.b))),
    ):
        gradient = estimator(PROBLEM, inner, start, task.task, KEY)[1].params
        np.testing.assert_allclose(gradient, expected, atol=1e-5)
    with pytest.raises(UserError, match=r"line search of optax.lbfgs"):
        Unrolled()(PROBLEM, inner, start, task.task, KEY)
