"""Diagnostics of meta-gradients against dense linear algebra and closed forms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.meta import InnerLoop, MetaParams, Unrolled, safe_adam
from dsaml_jax.meta.diagnostics import similarity
from dsaml_jax.meta.diagnostics.cost import measure
from dsaml_jax.meta.diagnostics.hessian import lanczos
from dsaml_jax.meta.diagnostics.noise import gradient_noise
from dsaml_jax.meta.diagnostics.path import inner_path
from dsaml_jax.meta.directions import hessian_product
from tests.quadratics import PROBLEM, RATE, Quadratic

KEY, STEPS = jax.random.key(0), 4


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_lanczos_agrees_with_a_dense_hessian():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(20, 3)), rng.normal(size=20)
    params = {"w": rng.normal(size=(3, 4)), "v": rng.normal(size=4)}

    def loss(params):
        return jnp.mean((jnp.tanh(inputs @ params["w"]) @ params["v"] - targets) ** 2)

    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = np.linalg.eigvalsh(jax.hessian(lambda x: loss(unravel(x)))(flat))
    assert dense[0] < -1e-3 < 1e-3 < dense[-1]
    product = hessian_product(loss, params)
    np.testing.assert_allclose(lanczos(product, params, KEY, 16), dense, atol=1e-8)
    outer = np.asarray(lanczos(product, params, KEY, 10))
    np.testing.assert_allclose(outer[[0, -1]], dense[[0, -1]], rtol=1e-2)


def test_lanczos_stops_when_the_space_is_exhausted():
    """Three distinct eigenvalues span three dimensions; the remaining values are 0."""
    matrix = jnp.diag(jnp.array([2.0, 2.0, -1.0, 5.0, 5.0, 5.0]))
    values = lanczos(lambda v: matrix @ v, jnp.ones(6), KEY, 5)
    np.testing.assert_allclose(values, [-1, 0, 0, 2, 5], atol=1e-6)


def test_gradients_along_the_inner_path_are_truncated_meta_gradients():
    task = Quadratic.random(0)
    inner = InnerLoop(STEPS, optax.sgd(RATE))
    path = inner_path(
        PROBLEM, inner, MetaParams(jnp.asarray(task.start), {}), task.task, KEY, iterations=5
    )
    for k in range(STEPS + 1):
        expected = task.shrink(STEPS - k).T @ task.query_gradient(STEPS)
        np.testing.assert_allclose(path.gradients[k], expected, atol=1e-10)
    curvature = np.linalg.eigvalsh(task.A)[[-1, 0]]
    np.testing.assert_allclose(path.eigenvalues, np.tile(curvature, (STEPS, 1)), atol=1e-8)
    values = [(x - task.a) @ task.A @ (x - task.a) / 2 for x in map(task.after, range(STEPS))]
    np.testing.assert_allclose(path.losses, values, atol=1e-10)


def test_the_inner_path_differentiates_through_the_optimizer_state():
    task = Quadratic.random(1)
    meta_params = MetaParams(jnp.asarray(task.start), {})
    for optimizer in (optax.sgd(RATE, momentum=0.9), safe_adam(0.1)):
        inner = InnerLoop(STEPS, optimizer)
        path = inner_path(PROBLEM, inner, meta_params, task.task, KEY, iterations=2)
        _, exact = Unrolled()(PROBLEM, inner, meta_params, task.task, KEY)
        np.testing.assert_allclose(path.gradients[0], exact.params, atol=1e-10)


def test_gradient_noise_is_unbiased():
    """Averaged over many meta-batches, signal and spread are those of the distribution."""
    rng = np.random.default_rng(0)
    mean, deviation = np.array([1.0, -2.0, 0.5]), np.array([2.0, 1.0, 3.0])
    draws = mean + deviation * rng.normal(size=(20_000, 4, 3))
    noise = jax.vmap(lambda g: gradient_noise({"a": g[:, :1], "b": g[:, 1:]}))(draws)
    np.testing.assert_allclose(noise.signal.mean(), (mean**2).sum(), rtol=0.03)
    np.testing.assert_allclose(noise.spread.mean(), (deviation**2).sum(), rtol=0.03)
    same = gradient_noise(np.tile(mean, (4, 1)))
    np.testing.assert_allclose([same.spread, same.scale], 0.0, atol=1e-12)
    assert np.isnan(gradient_noise(np.array([[1.0], [-1.0]])).scale)


def test_norms_and_cosines_are_reported_by_module():
    x = {"a": jnp.array([3.0, 4.0]), "b": {"c": jnp.array([1.0])}}
    y = {"a": jnp.array([4.0, -3.0]), "b": {"c": jnp.array([-2.0])}}
    assert similarity.norms(x) == {"all": np.sqrt(26), "a": 5.0, "b": 1.0}
    cosines = similarity.cosines(x, y)
    assert (cosines["a"], cosines["b"]) == (0.0, -1.0)
    np.testing.assert_allclose(cosines["all"], -2 / np.sqrt(26 * 29))
    assert similarity.second_order_share(x, y)["b"] == 3.0


def test_measure_reports_memory_and_time():
    x = jnp.ones((64, 64))
    functions = {"small": lambda x: x + 1, "large": lambda x: x @ x @ (x.T @ x)}
    measured = measure(functions, dict.fromkeys(functions, (x,)), 2)
    small, large = (measured[name].cost for name in ("small", "large"))
    assert 0 <= small.temp_bytes < large.temp_bytes
    assert large.seconds > 0
    np.testing.assert_array_equal(measured["small"].result, x + 1)
