"""Overlapping windows encoded together equal each window encoded alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax import DSAML, DSAMLConfig
from dsaml_jax.model import initialize
from dsaml_jax.model.overlapping import middles_are_shared

CONFIG = DSAMLConfig(
    dim=8,
    heads=2,
    layers=2,
    feed_forward=8,
    channels=(2, 2),
    local_width=2,
    global_width=6,
    max_positions=32,
    lstm_dim=4,
    predictor_dim=4,
    normalization="running",
    dtype="float64",
    param_dtype="float64",
)
IMAGE, SEGMENTS, BLOCK, WIDTH = (6, 8), 12, 20, 5
CASES = {
    "shared up to the last middle": dict(layers=3),
    "nothing left in the middle": dict(local_width=3),
    "too wide to share": dict(local_width=4),
    "width 0": dict(local_width=0),
    "local pass only": dict(global_attention=False),
    "no mask": dict(local_attention=False, global_attention=False),
    "position of key and query": dict(position="relative_key_query"),
    "no position": dict(position="none", fusion_linear=False),
}


@pytest.mark.parametrize(
    "case, per_segment", [(case, True) for case in CASES] + [("nothing left in the middle", False)]
)
def test_windows_encoded_together_equal_windows_alone(case, per_segment):
    config = dataclasses.replace(CONFIG, **CASES[case])
    shared = case not in ("too wide to share", "no mask", "width 0")
    assert middles_are_shared(config, config.bands[0], SEGMENTS) == shared
    rng = np.random.default_rng(0)
    starts = np.array([8, 0, 1, 3, 1])
    inside = starts[:, None] + np.arange(SEGMENTS)
    with jax.enable_x64(True):
        variables = initialize(config, jax.random.key(1), IMAGE, WIDTH)
        log_mel = jnp.asarray(rng.normal(size=(BLOCK, *IMAGE)))
        embedding = jnp.asarray(rng.normal(size=(BLOCK, WIDTH)[0 if per_segment else 1 :]))
        model = DSAML(config)

        @jax.jit
        def together(variables):
            local = model.apply(variables, log_mel[None], method="describe")[0]
            return model.apply(
                variables, local, embedding, starts, SEGMENTS, method="encode_overlapping"
            )

        @jax.jit
        def alone(variables):
            rows = embedding[inside] if per_segment else jnp.tile(embedding, (len(starts), 1))
            return model.apply(variables, log_mel[inside], rows, method="encode")[0]

        result, expected = np.asarray(together(variables)), np.asarray(alone(variables))
    assert result.dtype == np.float64 and result.std(1).min() > 1e-4
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12)
