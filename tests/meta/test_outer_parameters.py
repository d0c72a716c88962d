"""Outer parameters beside start and rates, against closed forms, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
    unlearned,
)
from tests.quadratics import Quadratic

KEY, STEPS = jax.random.key(0), 3
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def hyper_loss(params, batch, key):
    """Returns Σ_i exp(e_i) λ_i (θ_i - a_i)²/2 in the axes of A: weighted examples."""
    matrix, center = batch
    weights = jnp.exp(params["examples"])
    return jnp.sum(weights * (matrix @ (params["net"] - center)) ** 2) / 2


def query_loss(params, batch, key):
    matrix, center = batch
    difference = params["net"] - center
    return difference @ matrix @ difference / 2


def momentum_and_decay(frozen):
    """Builds θ' = θ - α (v + w θ), v' = μ v + P g, of a preconditioner P."""
    of = frozen["optimizer"]
    return optax.chain(
        optax.stateless(lambda g, _: jax.tree.map(lambda x: of["preconditioner"] * x, g)),
        optax.trace(of["momentum"]),
        optax.add_decayed_weights(of["decay"]),
        optax.scale(-0.1),
    )


PARAMS = {
    "examples": np.linspace(-0.3, 0.4, 5),
    "optimizer": {"momentum": 0.7, "decay": 0.05, "preconditioner": np.linspace(0.5, 1.5, 5)},
}
INNER = InnerLoop(STEPS, momentum_and_decay, adapt="net")
PROBLEM = Problem(hyper_loss, query_loss)


def by_hand(params, task):
    """Runs the inner loop without the library."""
    of, x, velocity = params["optimizer"], params["net"], 0.0
    matrix, center = task.support
    for _ in range(STEPS):
        g = matrix.T @ (jnp.exp(params["examples"]) * (matrix @ (x - center)))
        velocity = of["momentum"] * velocity + of["preconditioner"] * g
        x = x - 0.1 * (velocity + of["decay"] * x)
    return query_loss({"net": x}, task.query, KEY)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_every_part_has_the_gradient_of_a_loop_by_hand(engine):
    """Parameters of the loss (weights of examples) and of the optimizer, beside the start."""
    quadratic = Quadratic.random(0)
    params = PARAMS | {"net": quadratic.start}
    expected = jax.grad(by_hand)(jax.tree.map(jnp.asarray, params), quadratic.task)
    arguments = PROBLEM, INNER, MetaParams(params, {}), quadratic.task, KEY
    _, gradient = Unrolled(engine=engine)(*arguments)
    jax.tree.map(close, gradient.params, expected)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-4
    _, truncated = Unrolled(1, engine)(*arguments)
    assert np.abs(truncated.params["examples"]).max() > 1e-4
    _, first = Unrolled(0)(*arguments)
    close(first.params["examples"], 0.0)
    assert np.abs(first.params["optimizer"]["preconditioner"]).max() > 1e-4


def test_weights_of_examples_have_their_implicit_gradient_without_a_proximal_term():
    """φ* = (Xᵀ W X + δ)⁻¹ Xᵀ W y for weights W and a ridge δ, both learned."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=8)
    query = rng.normal(size=(8, 3)), rng.normal(size=8)

    def loss(params, batch, key):
        x, y = batch
        weights = jax.nn.sigmoid(params["examples"])
        ridge = jnp.exp(params["ridge"]) * jnp.sum(params["net"] ** 2)
        return jnp.sum(weights * (x @ params["net"] - y) ** 2) + ridge

    def error(params, batch, key):
        return jnp.mean((batch[0] @ params["net"] - batch[1]) ** 2)

    def solved(params):
        weights = jax.nn.sigmoid(params["examples"])
        system = x.T @ (weights[:, None] * x) + jnp.exp(params["ridge"]) * jnp.eye(3)
        return error({"net": jnp.linalg.solve(system, x.T @ (weights * y))}, query, KEY)

    params = {"examples": rng.normal(size=8), "ridge": -0.5, "net": rng.normal(size=3)}
    expected = jax.grad(solved)(jax.tree.map(jnp.asarray, params))
    inner = InnerLoop(600, optax.sgd(0.05), adapt="net")
    for solver in (
        Implicit(50, 1e-14),
        Implicit(50, 1e-14, solver="normal_cg"),
        Implicit(600, solver="neumann", step_size=0.05),
    ):
        result, gradient = solver(
            Problem(loss, error), inner, MetaParams(params, {}), Task((x, y), query), KEY
        )
        jax.tree.map(close, gradient.params, expected)
        assert result.numbers["residual"] < 1e-10 and result.numbers["stationarity"] < 1e-10
        assert result.numbers["curvature"] > 0


def test_parts_without_a_gradient_are_named():
    quadratic = Quadratic.random(0)
    params = PARAMS | {"net": quadratic.start, "rows": np.arange(3)}
    optimizer = [f"params/optimizer/{name}" for name in ("decay", "momentum", "preconditioner")]
    for estimator, expected in (
        (Unrolled(), []),
        (Unrolled(1), []),
        (Annealed(0.5), []),
        (Unrolled(0), ["params/examples"]),
        (Reptile(), ["params/examples", *optimizer]),
        (Implicit(), [*optimizer, "params/net"]),
    ):
        arguments = PROBLEM, INNER, MetaParams(params, {}), quadratic.task
        assert sorted(unlearned(estimator, *arguments)) == sorted(expected), estimator


def test_named_parts_do_not_depend_on_values():
    """A gradient that happens to be zero is one."""
    quadratic = Quadratic.random(0)
    task = Task(quadratic.task.support, (quadratic.B, quadratic.a))
    params = PARAMS | {"net": quadratic.a}
    arguments = PROBLEM, INNER, MetaParams(params, {}), task
    assert unlearned(Unrolled(0), *arguments) == ["params/examples"]
