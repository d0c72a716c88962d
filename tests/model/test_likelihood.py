"""The likelihood and the decision layer against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.meta import InnerLoop, MetaParams, adapt
from dsaml_jax.model import DSAML, DSAMLConfig, initialize
from dsaml_jax.model.batch import Batch
from dsaml_jax.model.decision import Decision
from dsaml_jax.model.likelihood import Noise, negative_log_likelihood, whiten
from dsaml_jax.model.objective import dsaml_loss, dsaml_problem

KEY = jax.random.key(0)
CONFIG = DSAMLConfig(
    dim=4,
    heads=2,
    layers=1,
    feed_forward=4,
    channels=(2, 2),
    lstm_dim=2,
    predictor_dim=3,
    dropout=0.0,
    context_dim=2,
    support_loss="likelihood",
    decision=True,
    dtype="float64",
    param_dtype="float64",
)
CLIPS, SEGMENTS = 3, 7


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def example():
    """Returns (variables, batch) of the model with a context; the last clip is rated in part."""
    rng = np.random.default_rng(0)
    variables = initialize(CONFIG, KEY, (3, 4), 5)
    valid = np.ones((CLIPS, SEGMENTS), bool)
    valid[2, :2] = valid[2, 5] = False
    batch = Batch(
        jnp.asarray(rng.normal(size=(CLIPS, SEGMENTS, 3, 4))),
        jnp.asarray(rng.normal(size=(CLIPS, 5))),
        jnp.asarray(rng.normal(0, 0.3, (CLIPS, SEGMENTS, 2))),
        jnp.asarray(valid),
        {},
    )
    return variables, batch


def noise():
    return Noise(*(jnp.array(pair) for pair in ((1.0, 2.0), (3.0, 2.5), (1.5, 2.0), (0.3, 1.2))))


def by_hand(error, valid, d):
    """Returns the negative log-likelihood of one clip and dimension, segment by segment."""
    level, movement, count, logit = (float(field[d]) for field in noise())
    correlation = 1 / (1 + np.exp(-logit))
    mean = error[valid].mean()
    total = 0.0
    for t in range(len(error) - 1):
        if valid[t] and valid[t + 1]:
            w = (error[t + 1] - mean) - correlation * (error[t] - mean)
            total += np.exp(movement) * w**2 - movement
    return (np.exp(level) * mean**2 - level) / 2 + np.exp(count) / (len(error) - 1) * total / 2


def test_the_likelihood_is_its_formula_over_rated_segments():
    _, batch = example()
    values = negative_log_likelihood(noise(), batch.curve, batch.valid)
    for clip, value in enumerate(values):
        expected = sum(
            by_hand(np.asarray(batch.curve[clip, :, d]), np.asarray(batch.valid[clip]), d)
            for d in range(2)
        )
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    unrated = jnp.zeros_like(batch.valid)
    np.testing.assert_array_equal(negative_log_likelihood(noise(), batch.curve, unrated), 0.0)


def test_a_dimension_may_be_rated_alone():
    """With a mask of each dimension, each is its formula over its own segments."""
    _, batch = example()
    valid = np.stack([batch.valid, np.roll(batch.valid, 3, axis=1)], axis=-1)
    valid[0, :, 1] = False
    curve = np.where(valid, batch.curve, 7.0)  # what is not rated does not count
    values = negative_log_likelihood(noise(), jnp.asarray(curve), jnp.asarray(valid))
    for clip, value in enumerate(values):
        expected = sum(
            by_hand(curve[clip, :, d], valid[clip, :, d], d)
            for d in range(2)
            if valid[clip, :, d].any()
        )
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    both = negative_log_likelihood(noise(), batch.curve, jnp.stack([batch.valid] * 2, axis=-1))
    alike = negative_log_likelihood(noise(), batch.curve, batch.valid)
    np.testing.assert_array_equal(both, alike)


def test_whitening_is_linear():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(CLIPS, SEGMENTS, 3)), rng.normal(size=(3, 1))
    valid = example()[1].valid
    curve, basis = (whiten(jnp.asarray(v), valid, jnp.array([0.6])) for v in (x @ weights, x))
    for a, b in zip(curve, basis, strict=True):
        np.testing.assert_allclose(a, b @ weights, atol=1e-12)


def test_one_newton_step_on_the_context_is_bayesian_regression():
    """z = (ΣXᵀX + I)⁻¹ ΣXᵀe over the whitened directions X and errors e of all clips."""
    variables, batch = example()
    params = variables["params"]
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 2)))
    bias = jnp.asarray(np.random.default_rng(3).normal(size=(2, 2)))
    params["predictor"]["context"] |= {"kernel": kernel, "bias": bias}
    params["likelihood"] = noise()._asdict()
    inner = InnerLoop(
        1,
        optax.sgd(1.0),
        adapt=("predictor/context/vector",),
        proximal=1.0,
        direction="newton",
    )
    problem = dsaml_problem(CONFIG, train=False)
    adapted = adapt(problem, inner, MetaParams(params, {}), batch, KEY)

    network = DSAML(CONFIG)
    features = network.apply(variables, batch.log_mel, batch.embedding, method="encode")[0]
    basis = network.apply({"params": params}, features, method="basis")
    error = batch.curve - network.apply({"params": params}, basis, method="read")
    system, pull = np.eye(2), np.zeros(2)
    for d in range(2):
        moves = jnp.einsum("nsp,kp->nsk", basis, kernel[:, :, d]) + bias[:, d]
        correlation = jax.nn.sigmoid(noise().correlation[d : d + 1])
        x, e = (whiten(v, batch.valid, correlation) for v in (moves, error[..., d : d + 1]))
        scales = (
            np.exp(noise().log_level[d]),
            np.exp(noise().log_movement[d] + noise().log_count[d]) / (SEGMENTS - 1),
        )
        for scale, xs, es in zip(scales, x, e, strict=True):
            flat, target = np.reshape(xs, (-1, 2)), np.ravel(es)
            system, pull = system + scale * flat.T @ flat, pull + scale * flat.T @ target
    found = adapted.params["predictor"]["context"]["vector"]
    np.testing.assert_allclose(found, np.linalg.solve(system, pull), rtol=1e-9)


def test_a_decision_scales_the_deviation_by_its_rule_and_keeps_the_mean():
    rng = np.random.default_rng(4)
    curve = jnp.asarray(rng.normal(0.2, [0.05, 0.3], (CLIPS, SEGMENTS, 2)))
    layer = Decision(CONFIG)
    k, a = np.array([0.4, -0.2]), np.array([0.5, 1.3])

    def decide(k, a):
        return layer.apply({"params": {"log_gain": jnp.array(k), "exponent": jnp.array(a)}}, curve)

    decided = decide(k, a)
    np.testing.assert_allclose(decided.mean(1), curve.mean(1), atol=1e-12)
    expected = 0.1 * np.exp(k) * (np.asarray(curve.std(1)) / 0.1) ** a
    np.testing.assert_allclose(decided.std(1), expected, rtol=1e-3)
    np.testing.assert_allclose(decide(np.zeros(2), np.ones(2)), curve, atol=1e-12)
    flat = jnp.full((1, SEGMENTS, 2), 0.3)
    parameters = {"params": {"log_gain": jnp.array(k), "exponent": jnp.array(a)}}
    np.testing.assert_allclose(layer.apply(parameters, flat), flat, atol=1e-9)
    gradient = jax.grad(lambda x: layer.apply(parameters, x).sum())(flat)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("support_loss", ["score", "likelihood"])
def test_the_decision_counts_for_the_query_and_not_for_the_support(support_loss):
    config = dataclasses.replace(CONFIG, support_loss=support_loss)
    plain = dataclasses.replace(config, decision=False)
    variables = initialize(config, KEY, (3, 4), 5)
    params, (_, batch) = variables["params"], example()
    support = [dsaml_problem(c, train=False).loss(params, batch, KEY) for c in (config, plain)]
    np.testing.assert_allclose(*support, rtol=1e-12)
    query = [dsaml_loss(c, train=False)(params, batch, KEY)[0] for c in (config, plain)]
    assert abs(query[0] - query[1]) > 1e-6


def test_more_songs_tell_more():
    """The loss of a support of several clips is the sum of theirs."""
    variables, batch = example()
    loss = dsaml_problem(CONFIG, train=False).loss
    alone = sum(
        loss(variables["params"], jax.tree.map(lambda x, i=i: x[i : i + 1], batch), KEY)
        for i in range(CLIPS)
    )
    np.testing.assert_allclose(loss(variables["params"], batch, KEY), alone, rtol=1e-10)


def test_the_released_model_has_none_of_these_weights():
    released = dataclasses.replace(CONFIG, context_dim=0, support_loss="score", decision=False)
    params = initialize(released, KEY, (3, 4), 5)["params"]
    assert set(params) == {"adapter", "fusion", "transformer", "predictor"}
    assert "context" not in params["predictor"]
