"""Custom derivatives in a loss: refused where they would be wrong, found, and measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.meta import ENGINES, Implicit, InnerLoop, MetaParams, Problem, Task, Unrolled
from dsaml_jax.meta.diagnostics import asymmetry
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.symmetry import custom_derivatives

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@jax.custom_vjp
def reversal(x):
    return x


reversal.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@jax.custom_vjp
def clipping(x):
    return x


clipping.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.02, 0.02),))


@jax.custom_vjp
def rounding(x):
    return jnp.round(4 * x) / 4


rounding.defvjp(lambda x: (rounding(x), None), lambda _, g: (g,))


@jax.custom_jvp
def one_sided(x):
    return x * x


@one_sided.defjvp
def _(primals, tangents):
    return primals[0] * primals[0], primals[0] * tangents[0]


@jax.custom_vjp
def square(x):
    return x * x


square.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))


def example(function):
    """Returns (problem, meta-parameters, task) whose support loss applies `function`."""

    def loss(params, batch, key):
        x, y = batch
        return jnp.mean(
            (function(jax.nn.relu(x @ params["w"])) * params["v"][:1] - y[:, None]) ** 2
        )

    def query_loss(params, batch, key):
        return jnp.mean((jnp.tanh(batch[0] @ params["w"]) @ params["v"] - batch[1]) ** 2)

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 4)), "v": rng.normal(size=4)}
    task = Task(*((rng.normal(size=(8, 3)), rng.normal(size=8)) for _ in range(2)))
    return Problem(loss, query_loss), MetaParams(params, {}), task


@pytest.mark.parametrize("function", [reversal, clipping])
def test_custom_rules_are_differentiated_by_remat_and_refused_by_mixed(function):
    """remat agrees with finite differences of the loop that runs, whatever the rule."""
    problem, start, task = example(function)
    inner = InnerLoop(3, optax.sgd(0.1))
    direction = jax.tree.map(lambda x: np.random.default_rng(1).normal(size=x.shape), start.params)
    for name in ("reverse", "remat"):
        estimator = Unrolled(engine=ENGINES[name])

        def value(step, estimator=estimator):
            params = jax.tree.map(lambda x, d: x + step * d, start.params, direction)
            return estimator(problem, inner, MetaParams(params, {}), task, KEY)[0].query_loss

        numeric = (value(1e-6) - value(-1e-6)) / 2e-6
        _, gradient = estimator(problem, inner, start, task, KEY)
        exact = optax.tree.vdot(gradient.params, direction)
        np.testing.assert_allclose(exact, numeric, rtol=1e-5)
    with pytest.raises(UserError, match=rf"contains {function.__name__} \(.*test_symmetry.py:\d+"):
        Unrolled(engine=ENGINES["mixed"])(problem, inner, start, task, KEY)


def test_straight_through_rounding_has_the_same_gradient_by_reverse_and_remat():
    problem, start, task = example(rounding)
    inner = InnerLoop(3, optax.sgd(0.1))
    plain, again = (
        Unrolled(engine=ENGINES[name])(problem, inner, start, task, KEY)[1].params
        for name in ("reverse", "remat")
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-12), plain, again)
    with pytest.raises(UserError, match="contains rounding"):
        Unrolled(engine=ENGINES["mixed"])(problem, inner, start, task, KEY)


@pytest.mark.parametrize("function", [reversal, one_sided])
def test_whatever_needs_a_symmetric_hessian_refuses_custom_rules(function):
    problem, start, task = example(function)
    sgd = functools.partial(InnerLoop, 2, optax.sgd(0.1), proximal=1.0)
    for estimator, inner, what in (
        (Unrolled(engine=ENGINES["mixed"]), sgd(), "the mixed engine"),
        (Unrolled(0), sgd(direction="newton"), "Newton's direction"),
        (Implicit(), sgd(), "the implicit estimator"),
    ):
        with pytest.raises(UserError, match=f"{function.__name__} .* and {what} is right for true"):
            estimator(problem, inner, start, task, KEY)
    Unrolled(0, ENGINES["mixed"])(problem, sgd(), start, task, KEY)  # nothing is differentiated


def test_a_true_derivative_is_allowed_by_name():
    problem, start, task = example(square)
    inner = InnerLoop(2, optax.sgd(0.1))
    allowed = Problem(problem.loss, problem.query_loss, true_derivatives=("square",))
    _, exact = Unrolled()(problem, inner, start, task, KEY)
    with pytest.raises(UserError, match=r"set Problem.true_derivatives to \('square',\)"):
        Unrolled(engine=ENGINES["mixed"])(problem, inner, start, task, KEY)
    _, mixed = Unrolled(engine=ENGINES["mixed"])(allowed, inner, start, task, KEY)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-12), mixed, exact)


def test_custom_rules_are_found_wherever_they_are_and_those_of_jax_left_out():
    own = jax.custom_jvp(jnp.sign)  # a function of JAX with a rule that is not
    own.defjvps(lambda tangent, answer, x: tangent)

    def loss(x):
        y, _ = jax.lax.scan(lambda c, _: (jax.checkpoint(reversal)(c), None), x, length=2)
        y = jax.lax.cond(x[0] > 0, clipping, lambda x: x, jax.jit(own)(y))
        y = y + optax.scale_gradient({"x": x}, 2.0)["x"] + jax.nn.relu6(x) + jax.nn.gelu(x)
        return jnp.sum(jax.nn.relu(y) + jax.nn.softmax(y) + jax.nn.logsumexp(y) + jax.nn.silu(y))

    names = [name for name, _ in custom_derivatives(loss, jnp.ones(3))]
    assert sorted(names) == ["_scale_gradient", "clipping", "reversal", "sign"]


def test_asymmetry_measures_what_the_refusals_guess():
    for function, symmetric in ((square, True), (jnp.sin, True), (reversal, False)):
        problem, start, task = example(function)
        measured = asymmetry(problem, InnerLoop(1, optax.sgd(0.1)), start, task.support, KEY)
        assert (measured < 1e-12) if symmetric else (measured > 1e-2), (function, measured)


def test_complex_weights_have_the_same_gradient_by_all_engines():
    """g = dL/dRe - i dL/dIm, checked by finite differences."""

    def loss(z, target, key):
        return jnp.sum(jnp.abs(jnp.exp(1j * z) * z**2 - target) ** 2)

    z = np.array([0.3 + 0.4j, 0.1 - 0.2j])
    task = Task(np.array([1.0 + 0j, 0.5j]), np.array([0.2 + 0j, 1j]))
    arguments = Problem(loss, loss), InnerLoop(2, optax.sgd(0.01))

    def value(z):
        return Unrolled().loss(Episode.create(*arguments, task, KEY), MetaParams(z, {}))[0]

    def slope(i, unit):
        step = np.zeros(2, complex)
        step[i] = 1e-6 * unit
        return (value(z + step) - value(z - step)) / 2e-6

    numeric = [complex(slope(i, 1), -slope(i, 1j)) for i in range(2)]
    for engine in ENGINES.values():
        _, gradient = Unrolled(engine=engine)(*arguments, MetaParams(z, {}), task, KEY)
        np.testing.assert_allclose(gradient.params, numeric, rtol=1e-6)
