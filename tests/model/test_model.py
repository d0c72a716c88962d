"""Properties that the model has by construction, for any weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax import DSAML, DSAMLConfig
from dsaml_jax.errors import UserError
from dsaml_jax.model import convolution, initialize
from dsaml_jax.model.transformer import MASKED, band_bias, skew

SMALL = DSAMLConfig(
    dim=16,
    heads=2,
    layers=2,
    feed_forward=32,
    local_width=2,
    global_width=5,
    lstm_dim=8,
    lstm_unroll=1,
    predictor_dim=8,
)
IMAGE, SEGMENTS, EMBEDDING = (9, 12), 10, 7


def inputs(clips: int, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed))
    log_mel = jax.random.normal(keys[0], (clips, SEGMENTS, *IMAGE)) - 5
    return log_mel, jax.random.normal(keys[1], (clips, EMBEDDING))


def model(**changes):
    """Returns a config with changes that keep the shapes of the weights, and its variables."""
    config = dataclasses.replace(SMALL, **changes)
    return config, initial_variables(config.normalization == "running")


@functools.cache
def initial_variables(running: bool):
    config = dataclasses.replace(SMALL, normalization="running" if running else "clip")
    return initialize(config, jax.random.key(1), IMAGE, EMBEDDING)


@functools.cache
def compiled(config: DSAMLConfig, train: bool = False):
    """Returns the compiled model, apply(variables, log_mel, embedding, rngs) -> Output."""
    module = DSAML(config)
    return jax.jit(lambda *inputs, rngs=None: module.apply(*inputs, train=train, rngs=rngs))


def test_the_paper_size_has_29_million_weights():
    shapes = jax.eval_shape(
        lambda key: initialize(DSAMLConfig(), key, (51, 128), 1024), jax.random.key(0)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert 29_000_000 < count < 30_000_000


@pytest.mark.parametrize("normalization", ["clip", "batch", "running"])
def test_a_clip_depends_on_its_batch_only_with_batch_statistics(normalization):
    config, variables = model(normalization=normalization)
    apply = compiled(config)
    log_mel, embedding = inputs(3)
    together = apply(variables, log_mel, embedding).curve
    alone = jnp.concatenate(
        [apply(variables, log_mel[i : i + 1], embedding[i : i + 1]).curve for i in range(3)]
    )
    same = np.allclose(together, alone, atol=1e-5)
    assert same == (normalization != "batch")


def test_an_embedding_of_the_clip_equals_that_embedding_of_every_segment():
    config, variables = model()
    log_mel, embedding = inputs(2)
    rows = jnp.repeat(embedding[:, None], SEGMENTS, axis=1)
    whole = compiled(config)(variables, log_mel, embedding).curve
    np.testing.assert_allclose(compiled(config)(variables, log_mel, rows).curve, whole, atol=1e-6)
    one_changed = compiled(config)(variables, log_mel, rows.at[0, 3].add(1.0)).curve
    assert np.abs(one_changed[0] - whole[0]).max() > 1e-4
    np.testing.assert_allclose(one_changed[1], whole[1], atol=1e-6)


@pytest.mark.parametrize("leading", [(), (3,), (2, SEGMENTS + 1), (2, SEGMENTS, 1)])
def test_embeddings_of_other_clips_or_segments_are_rejected(leading):
    config, variables = model()
    with pytest.raises(ValueError, match=r"embedding \[N, G\] or \[N, S, G\]"):
        DSAML(config).apply(variables, inputs(2)[0], jnp.zeros((*leading, EMBEDDING)))


def test_clip_statistics_are_batch_statistics_of_one_clip():
    log_mel, embedding = inputs(1)
    curves = []
    for normalization in ("clip", "batch"):
        config, variables = model(normalization=normalization)
        curves.append(compiled(config)(variables, log_mel, embedding).curve)
    np.testing.assert_allclose(*curves, atol=1e-6)


def test_running_statistics_converge_to_those_of_a_repeated_batch():
    config, variables = model(normalization="running", normalization_momentum=0.5)
    log_mel, embedding = inputs(3)
    apply = jax.jit(
        lambda variables: DSAML(config).apply(
            variables,
            log_mel,
            embedding,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )[1]
    )
    for _ in range(40):
        variables = {**variables, **apply(variables)}
    running = compiled(config)(variables, log_mel, embedding).curve
    batch = compiled(dataclasses.replace(config, normalization="batch"))(
        {"params": variables["params"]}, log_mel, embedding
    )
    # The remaining difference is the factor n / (n - 1) of the variance.
    np.testing.assert_allclose(running, batch.curve, atol=1e-3)


def reference_adapter(params, log_mel):
    """Computes the adapter with plain lax convolutions and batch statistics."""
    x = log_mel.reshape(-1, *log_mel.shape[2:], 1)
    for i, padding in ((1, ((2, 2), (1, 1))), (2, ((1, 1), (1, 1)))):
        conv, norm = params[f"conv_{i}"], params[f"norm_{i}"]
        x = jax.lax.conv_general_dilated(
            x, conv["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x + conv["bias"]
        x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        x = jax.nn.relu(x * norm["scale"] + norm["bias"])
        x = jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
        )
    x = x @ params["conv_3"]["kernel"][0, 0] + params["conv_3"]["bias"]
    return x.reshape(*log_mel.shape[:2], -1)


@pytest.mark.parametrize("image", [(9, 12), (8, 13), (51, 128)])
def test_the_adapter_equals_the_reference_even_with_negative_scales(image):
    from dsaml_jax.model.adapter import SpectrogramAdapter

    config = dataclasses.replace(SMALL, normalization="batch")
    log_mel = jax.random.normal(jax.random.key(0), (2, 3, *image)) - 4
    adapter = SpectrogramAdapter(config)
    params = adapter.init(jax.random.key(1), log_mel, True)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    params = jax.tree.unflatten(
        tree, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
    assert (params["norm_2"]["scale"] < 0).any()
    ours = adapter.apply({"params": params}, log_mel, True)
    np.testing.assert_allclose(ours, reference_adapter(params, log_mel), rtol=2e-4, atol=2e-4)


def test_curves_do_not_depend_on_adapter_clips():
    log_mel, embedding = inputs(5)
    curves = []
    for clips in (1, 2, 5):
        config, variables = model(adapter_clips=clips)
        curves.append(compiled(config)(variables, log_mel, embedding).curve)
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-6)
    np.testing.assert_allclose(curves[0], curves[2], atol=1e-6)


def test_first_moments_equal_those_of_the_convolution():
    clip = jax.random.normal(jax.random.key(0), (6, 7, 4)) - 3
    kernel = jax.random.normal(jax.random.key(1), (3, 1, 1, 5))
    moments = convolution.first_moments(clip, kernel, jnp.float32)
    padded = jnp.pad(clip, ((2, 2), (1, 1), (0, 0)))
    conv = sum(kernel[k, 0, 0][:, None, None, None] * padded[k : k + 8] for k in range(3))
    np.testing.assert_allclose(moments.mean, conv.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, conv.var((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_skew_moves_distances_to_diagonals(size):
    x = jax.random.normal(jax.random.key(0), (3, size, 2 * size - 1))
    expected = np.stack(
        [[[x[n, i, j - i + size - 1] for j in range(size)] for i in range(size)] for n in range(3)]
    )
    np.testing.assert_array_equal(skew(x), expected)


@pytest.mark.parametrize("position", ["none", "relative_key", "relative_key_query"])
def test_attention_scores_follow_their_equation(position):
    from dsaml_jax.model.transformer import RelativeAttention

    config = dataclasses.replace(SMALL, position=position)
    x = jax.random.normal(jax.random.key(0), (1, 2, SEGMENTS, config.dim))
    bias = band_bias(SEGMENTS, 3)[None]
    attention = RelativeAttention(config)
    variables = attention.init(jax.random.key(1), x, bias, True)
    _, maps = attention.apply(variables, x, bias, True)
    params = variables["params"]

    def heads(name):
        y = x[0] @ params[name]["kernel"] + params[name]["bias"]
        return y.reshape(2, SEGMENTS, config.heads, -1)

    query, key = heads("query"), heads("key")
    scores = np.einsum("nihk,njhk->nhij", query, key)
    if position != "none":
        i, j = np.arange(SEGMENTS)[:, None], np.arange(SEGMENTS)[None]
        embedded = params["distance"][i - j + config.max_positions - 1]
        scores = scores + np.einsum("nihk,ijk->nhij", query, embedded)
        if position == "relative_key_query":
            scores = scores + np.einsum("njhk,ijk->nhij", key, embedded)
    expected = jax.nn.softmax(scores / np.sqrt(config.dim / config.heads) + bias)
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)


def test_attention_bands_and_ablations_have_their_widths():
    np.testing.assert_array_equal(band_bias(3, 1), [[0, 0, MASKED], [0, 0, 0], [MASKED, 0, 0]])
    log_mel, embedding = inputs(1)
    passes = {(True, True): 2, (True, False): 1, (False, True): 1, (False, False): 1}
    for (local, both), count in passes.items():
        config, variables = model(local_attention=local, global_attention=both)
        maps = compiled(config)(variables, log_mel, embedding).attention
        assert maps.shape == (count, 2, 1, 2, SEGMENTS, SEGMENTS)
        width = 2 if local else 5 if both else SEGMENTS
        i, j = np.indices((SEGMENTS, SEGMENTS))
        assert (np.asarray(maps[0])[..., np.abs(i - j) > width] < 1e-12).all()
        np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)


def test_dropout_depends_on_its_key():
    config, variables = model(dropout=0.5)
    log_mel, embedding = inputs(1)

    def curve(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return compiled(config, train=True)(variables, log_mel, embedding, rngs=rngs).curve

    np.testing.assert_array_equal(curve(0), curve(0))
    assert not np.allclose(curve(0), curve(1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes_follow_the_config(dtype):
    config, variables = model(dtype=dtype, param_dtype="float32")
    initial = jax.eval_shape(
        lambda key: initialize(config, key, IMAGE, EMBEDDING), jax.random.key(0)
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(initial)} == {"float32"}
    output = compiled(config)(variables, *inputs(2))
    assert output.curve.dtype == jnp.float32
    full = compiled(SMALL)(variables, *inputs(2)).curve
    np.testing.assert_allclose(output.curve, full, atol=0.05 if dtype == "bfloat16" else 1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"normalization": "bach"}, "did you mean 'batch'"),
        ({"heads": 3}, "does not divide"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "at least 1"),
    ],
)
def test_invalid_configs_raise_user_errors(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(SMALL, **changes)
