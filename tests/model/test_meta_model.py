"""Meta-gradients on the real model, in float64: finite differences, engines, subsets."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.config.inner import ADAPTED
from dsaml_jax.meta import ENGINES, InnerLoop, MetaParams, Task, Unrolled, adapt
from dsaml_jax.meta.diagnostics import asymmetry
from dsaml_jax.meta.subset import merge, partition
from dsaml_jax.model import DSAMLConfig, initialize
from dsaml_jax.model.batch import Batch
from dsaml_jax.model.objective import dsaml_loss, dsaml_problem

TINY = DSAMLConfig(
    dim=4,
    heads=2,
    layers=1,
    feed_forward=4,
    local_width=1,
    global_width=2,
    channels=(2, 2),
    lstm_dim=2,
    predictor_dim=2,
    dropout=0.2,
    dtype="float64",
    param_dtype="float64",
)
IMAGE, SEGMENTS, STEPS = (3, 4), 4, 3
KEY = jax.random.key(2)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def random_batch(key, clips: int, batch_stats) -> Batch:
    keys = jax.random.split(key, 3)
    return Batch(
        log_mel=jax.random.normal(keys[0], (clips, SEGMENTS, *IMAGE)),
        embedding=jax.random.normal(keys[1], (clips, TINY.dim)),
        curve=jax.random.uniform(keys[2], (clips, SEGMENTS, 2), minval=-1.0),
        valid=jnp.ones((clips, SEGMENTS), bool),
        batch_stats=batch_stats,
    )


@functools.cache
def example(normalization: str):
    """Returns (problem, params, task) of the tiny model."""
    config = dataclasses.replace(TINY, normalization=normalization)
    variables = initialize(config, jax.random.key(0), IMAGE, TINY.dim)
    keys = jax.random.split(jax.random.key(1))
    batch_stats = variables.get("batch_stats", {})
    task = Task(random_batch(keys[0], 2, batch_stats), random_batch(keys[1], 2, batch_stats))
    return dsaml_problem(config, train=True), variables["params"], task


@functools.cache
def estimate(normalization: str, engine: str, chunk: int = 0, exact_steps: int | None = None):
    """Returns estimate(params) -> (result, meta-gradient), compiled once for all tests."""
    problem, _, task = example(normalization)
    estimator = Unrolled(exact_steps, dataclasses.replace(ENGINES[engine], chunk=chunk))
    inner = InnerLoop(STEPS, optax.sgd(0.1))
    return jax.jit(lambda params: estimator(problem, inner, MetaParams(params, {}), task, KEY))


@functools.cache
def meta_gradient(*variant):
    _, params, _ = example(variant[0])
    result, gradient = estimate(*variant)(params)
    return result, gradient.params


def difference(x, y) -> float:
    """Returns |x - y| / |y|."""
    return float(optax.global_norm(jax.tree.map(jnp.subtract, x, y)) / optax.global_norm(y))


@pytest.mark.parametrize(
    ("normalization", "engine", "chunk", "reference"),
    [
        ("clip", "remat", 0, "clip"),
        ("clip", "mixed", 2, "clip"),  # the second chunk is incomplete
        # Training computes with batch statistics and only tracks running ones, so the values are
        # those of "batch".
        ("running", "mixed", 3, "batch"),
    ],
)
def test_engines_agree(normalization, engine, chunk, reference):
    """Covers the BiLSTM, dropout, each normalization and incomplete chunks."""
    result, plain = meta_gradient(reference, "reverse")
    other, gradient = meta_gradient(normalization, engine, chunk)
    np.testing.assert_allclose(other.query_loss, result.query_loss, rtol=1e-12)
    assert difference(gradient, plain) < 1e-9


def test_second_order_agrees_with_finite_differences():
    _, params, _ = example("clip")
    _, gradient = meta_gradient("clip", "reverse")
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    direction = jax.tree.unflatten(
        tree, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
    step = 1e-5

    def at(side):
        """Returns the query loss, which all estimators compute; first order is the cheapest."""
        moved = jax.tree.map(lambda p, d: p + side * step * d, params, direction)
        result, _ = estimate("clip", "reverse", 0, 0)(moved)
        return float(result.query_loss)

    numeric = (at(1) - at(-1)) / (2 * step)
    exact = optax.tree.vdot(gradient, direction)
    assert abs(numeric - exact) <= 1e-4 * abs(exact)


def test_custom_derivatives_of_the_model_are_true_ones():
    problem, params, task = example("clip")
    inner = InnerLoop(1, optax.sgd(0.1))
    measured = jax.jit(functools.partial(asymmetry, problem, inner, pairs=2))(
        MetaParams(params, {}), task.support, KEY
    )
    assert measured < 1e-12


def test_first_order_is_the_plain_gradient_at_the_adapted_weights():
    problem, params, task = example("clip")
    _, first = meta_gradient("clip", "reverse", 0, 0)
    inner_key, query_key = jax.random.split(KEY)
    inner = InnerLoop(STEPS, optax.sgd(0.1))

    @jax.jit
    def plain(params):
        adapted = adapt(problem, inner, MetaParams(params, {}), task.support, inner_key)
        loss = functools.partial(problem.query_loss, batch=task.query, key=query_key)
        return jax.grad(loss, has_aux=True)(adapted.params)[0]

    assert difference(first, plain(params)) < 1e-9
    assert difference(first, meta_gradient("clip", "reverse")[1]) > 1e-2


def test_encoding_once_gives_the_same_loss():
    problem, params, task = example("batch")
    head, encoder = partition(params, ADAPTED["head"])
    loss = jax.jit(dsaml_loss(dataclasses.replace(TINY, normalization="batch"), train=True))
    encoded = problem.precompute(encoder, task.support, KEY)
    assert encoded.log_mel is None
    for batch in (encoded, task.support):
        value, _ = loss(merge(head, encoder), batch, KEY)
        np.testing.assert_allclose(
            value, loss(params, task.support, KEY)[0], rtol=1e-12, err_msg=str(batch)
        )
    unchanged = problem.precompute(partition(params, ADAPTED["norm"])[1], task.support, KEY)
    assert unchanged is task.support


def test_adapting_the_head_runs_the_encoder_once():
    """The transformer's GELU, the model's only erf, is in the loop only if it is adapted."""
    problem, params, task = example("clip")

    def loop_body(adapted: str) -> str:
        inner = InnerLoop(7, optax.sgd(0.1), adapt=ADAPTED[adapted])
        traced = jax.make_jaxpr(
            lambda params: (
                adapt(
                    problem,
                    inner,
                    MetaParams(params, {}),
                    task.support,
                    KEY,
                    exact_steps=0,
                ).params
            )
        )(params)
        loops = [e for e in traced.eqns if e.primitive.name == "scan" and e.params["length"] == 7]
        assert len(loops) == 1
        return str(loops[0].params["jaxpr"])

    assert "erf" not in loop_body("head")
    assert "erf" in loop_body("norm")


@pytest.mark.parametrize("name", ADAPTED)
def test_named_subsets_select_the_right_modules(name):
    personal = dataclasses.replace(TINY, context_dim=3, decision=True, support_loss="likelihood")
    params = initialize(personal, KEY, IMAGE, 5)["params"]
    adapted, _ = partition(params, ADAPTED[name])
    tops = {top for top, subtree in params.items() if jax.tree.leaves(adapted[top])}
    expected = {
        "all": {"adapter", "fusion", "transformer", "predictor"},
        "head": {"predictor"},
        "encoder": {"adapter", "fusion", "transformer"},
        "norm": {"adapter", "transformer"},
        "context": {"predictor"},
    }
    assert tops == expected[name]
    sizes = {len(leaf.shape) for leaf in jax.tree.leaves(adapted)}
    assert sizes == {1} if name in ("norm", "context") else 2 in sizes
