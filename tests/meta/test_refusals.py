"""Inputs at the edges of the library: they work, or one sentence says what was expected."""

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
    Engine,
    Implicit,
    InnerLoop,
    MetaParams,
    Problem,
    Reptile,
    Stream,
    Task,
    Unrolled,
    adapt,
    subset,
)
from dsaml_jax.meta.diagnostics import diagnose, scalars, similarity
from tests.quadratics import PROBLEM, RATE, Quadratic, estimate

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("estimator", [Annealed(0.5), Unrolled(multi_step_until=0.5)])
def test_schedules_need_the_progress(estimator):
    task = Quadratic.random(0)
    with pytest.raises(UserError, match="depends on the progress of meta-training"):
        estimate(estimator, task, 3, progress=None)
    for progress in (10, -0.1):
        with pytest.raises(UserError, match=rf"progress is {progress:.1f}; expected the share"):
            estimate(estimator, task, 3, progress=progress)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Unrolled(multi_step_until=-1.0), "multi_step_until is -1.0; expected a share"),
        (lambda: Annealed(1.5), "anneal_at is 1.5; expected a share"),
        (lambda: Annealed(0.5, multi_step_until=2.0), "multi_step_until is 2.0"),
        (lambda: Engine(chunk=-1), "engine.chunk is -1; expected at least 0"),
        (lambda: Implicit(0), "solver_steps is 0; expected at least 1"),
        (lambda: Implicit(solver="normal"), "solver is 'normal'; did you mean 'normal_cg'"),
        (lambda: Implicit(solver="neumann"), "expected a positive step_size for 'neumann'"),
        (lambda: Implicit(step_size=0.1), "and none for the others"),
        (lambda: Implicit(solver="neumann", step_size=-1.0), "expected a positive number"),
        (lambda: InnerLoop(1, SGD, adapt=()), "inner.adapt is empty"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def run(loss, *, params=None, query=None, support=None, estimator=None, inner=None, **fields):
    """Returns an estimate for weights of three ones, unless told otherwise."""
    problem = Problem(loss, query or (lambda p, b, k, *state: jnp.sum(p["w"] ** 2)), **fields)
    start = MetaParams({"w": jnp.ones(3)} if params is None else params, {})
    task = Task(jnp.zeros(3) if support is None else support, jnp.zeros(3))
    return (estimator or Unrolled())(problem, inner or InnerLoop(2, SGD), start, task, KEY)


def distance(params, batch, key):
    return jnp.sum((params["w"] - batch) ** 2) / 2


def with_state(params, batch, key, state):
    return distance(params, batch, key), state + 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"loss": lambda *a: distance(*a)[None]},
            r"Problem.loss returned float64\[1\]; expected a",
        ),
        ({"loss": lambda *a: 1}, r"Problem.loss returned int64\[\]"),
        ({"loss": lambda *a: (distance(*a), 0.0)}, "a tuple of 2; .* give Problem.init_state if"),
        ({"loss": distance, "query": lambda *a: jnp.ones(2)}, r"query_loss returned float64\[2\]"),
        (
            {"loss": lambda p, b, k, s: distance(p, b, k), "init_state": lambda *a: 0.0},
            r"returned float64\[\]; with Problem.init_state, expected \(scalar, state\)",
        ),
        (
            {"loss": lambda *a: (distance(*a[:3]), {"n": a[3]}), "init_state": lambda *a: 0.0},
            "returned a state of the structure",
        ),
        (
            {"loss": with_state, "init_state": lambda *a: jnp.zeros(2, int)},
            r"returned float64\[2\] as the state; expected int64\[2\]",
        ),
        ({"loss": distance, "support": "text"}, "the task holds a str at support; expected arrays"),
        ({"loss": distance, "support": Stream(jnp.ones((5, 3)))}, r"shape \(5, 3\).*steps is 2"),
        ({"loss": distance, "support": Stream(1.0)}, r"shape \(\), but inner.steps is 2"),
        (
            {"loss": distance, "params": {"w": jnp.ones(3), "key": KEY}},
            "the meta-parameter params/key is a random key",
        ),
        (
            {"loss": distance, "inner": InnerLoop(1, lambda frozen: 0.1)},
            "inner.optimizer returned a float; expected an optax transformation",
        ),
        (
            {
                "loss": distance,
                "inner": InnerLoop(1, SGD, rates="per_tensor"),
                "estimator": Reptile(),
            },
            "inner.rates is 'per_tensor', which Reptile has no gradient for",
        ),
        (
            {
                "loss": distance,
                "inner": InnerLoop(1, SGD, rates="per_tensor"),
                "estimator": Implicit(),
            },
            "inner.rates is 'per_tensor', but implicit gradients",
        ),
        (
            {"loss": distance, "support": Stream(jnp.ones((2, 3))), "estimator": Implicit()},
            "the support is a Stream, but implicit gradients",
        ),
        (
            {"loss": with_state, "init_state": lambda *a: 0.0, "estimator": Implicit()},
            "Problem.init_state is given, but implicit gradients",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(arguments, sentence):
    inner = arguments.get("inner")
    if inner is not None and inner.rates != "fixed":
        problem = Problem(distance, distance)
        start = MetaParams({"w": jnp.ones(3)}, {"w": jnp.ones(())})
        with pytest.raises(UserError, match=sentence):
            arguments["estimator"](problem, inner, start, Task(jnp.zeros(3), jnp.zeros(3)), KEY)
        return
    with pytest.raises(UserError, match=sentence):
        run(**arguments)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_integers_booleans_keys_and_numbers_of_python_are_allowed(engine):
    """Frozen or in batches; integers stay as they are, whatever the patterns say."""

    def loss(params, batch, key):
        noise = jax.random.normal(batch["key"], (4,))
        used = jnp.where(params["mask"], params["w"] * params["scale"] - noise, 0.0)
        return jnp.sum(used[params["rows"]] ** 2) / batch["length"] + 0 * params["count"]

    params = {
        "w": np.arange(4.0),
        "scale": 0.5,
        "rows": np.array([0, 2]),
        "mask": np.array([True, False, True, True]),
        "count": 3,
    }
    batch = {"key": jax.random.key(1), "length": 8}
    for inner in (InnerLoop(3, SGD), InnerLoop(0, SGD)):
        for estimator in (Unrolled(engine=engine), Unrolled(0), Reptile()):
            _, gradient = estimator(
                Problem(loss, loss), inner, MetaParams(params, {}), Task(batch, batch), KEY
            )
            assert jax.tree.structure(gradient.params) == jax.tree.structure(params)
            for name in ("rows", "mask", "count"):
                assert not np.any(gradient.params[name])
            moved = optax.apply_updates(jax.tree.map(jnp.asarray, params), gradient.params)
            assert moved["rows"].dtype == int and moved["mask"].dtype == bool
    adapted = adapt(Problem(loss, loss), InnerLoop(3, SGD), MetaParams(params, {}), batch, KEY)
    np.testing.assert_array_equal(adapted.params["rows"], params["rows"])
    assert adapted.params["scale"] != 0.5
    with pytest.raises(UserError, match="'rows' matches only leaves that cannot be adapted"):
        InnerLoop(1, SGD, adapt=("rows",)).partition(jax.tree.map(jnp.asarray, params))


def test_a_scalar_query_loss_is_enough():
    task = Quadratic.random(0)
    scalar = Problem(PROBLEM.loss, PROBLEM.loss)
    arguments = InnerLoop(3, optax.sgd(RATE)), MetaParams(task.start, {}), task.task, KEY
    (result, gradient), (_, expected) = (Unrolled()(p, *arguments) for p in (scalar, PROBLEM))
    assert result.auxiliary is None
    close(gradient.params, expected.params)


def test_patterns_are_strings_paths_with_brackets_and_names_below_flax_params():
    params = {"params": {"block[0]": {"w": jnp.ones(1)}, "head": {"w": jnp.ones(2)}}}
    for adapt_, name in (
        ("head", "head"),
        ("params/head", "head"),
        (("block[0]",), "block[0]"),
        ("block[0]/w", "block[0]"),
        ("params/block[[]0]", "block[0]"),
    ):
        adapted, _ = InnerLoop(1, SGD, adapt=adapt_).partition(params)
        kept = [p for p in ("block[0]", "head") if adapted["params"][p]["w"] is not None]
        assert kept == [name]
    assert set(similarity.norms(params)) == {"all", "block[0]", "head"}
    assert subset.paths(params)[0] == "params/block[0]/w"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_diagnoses_of_one_task_and_of_half_precision_are_finite(dtype):
    inner = InnerLoop(2, optax.sgd(RATE))
    start = MetaParams(jnp.asarray(Quadratic.random(0).start, dtype), {})
    tasks = jax.tree.map(lambda x: jnp.asarray(x, dtype)[None], Quadratic.random(0).task)
    diagnosis = diagnose(PROBLEM, inner, start, tasks, jax.random.split(KEY, 1), iterations=5)
    named = scalars(diagnosis)
    assert "noise/spread" not in named and np.isnan(diagnosis.noise.spread)
    curvature = np.linalg.eigvalsh(Quadratic.random(0).A)[-1]
    np.testing.assert_allclose(
        named["eigenvalue_max/0"], curvature, rtol=1e-4 if dtype == "float32" else 0.05
    )
    assert named["cosine/all"] > 0.5
    with pytest.raises(UserError, match=r"inner.steps is 0; expected at least 1"):
        diagnose(PROBLEM, InnerLoop(0, SGD), start, tasks, jax.random.split(KEY, 1))


def test_implicit_gradients_at_a_saddle_report_its_curvature():
    """J = -5 φ_0²/2 + φ_0⁴/4 + (φ_1² + φ_2²)/2 + |φ - θ|²/2 has a saddle at φ_0 = 0."""

    def loss(params, batch, key):
        return -5 * params[0] ** 2 / 2 + jnp.sum(params**4) / 4 + jnp.sum(params[1:] ** 2) / 2

    problem = Problem(loss, lambda p, b, k: jnp.sum((p - b) ** 2) / 2)
    inner = InnerLoop(200, optax.sgd(0.05), proximal=1.0)
    for first, negative in ((0.0, True), (2.0, False)):
        start = MetaParams(jnp.array([first, 1.0, 1.0]), {})
        result, _ = Implicit(50, 1e-12)(problem, inner, start, Task(0.0, 1.0), KEY)
        assert result.numbers["residual"] < 1e-10 and result.numbers["stationarity"] < 1e-4
        assert (result.numbers["curvature"] < 0) == negative
