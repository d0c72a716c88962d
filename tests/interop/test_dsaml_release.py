"""Lists of missing, misshapen, unknown and contradictory weights of the release."""

import json

import jax
import numpy as np
import pytest

from dsaml_jax import DSAMLConfig
from dsaml_jax.errors import UserError
from dsaml_jax.interop import load_dsaml_checkpoint
from dsaml_jax.interop.dsaml_release import variables_from_release
from dsaml_jax.interop.torch_file import read_torch_file
from tests.golden_numbers import SETS, Golden

GOLDEN = Golden(SETS[0], "float32")
CONFIG = GOLDEN.config("running")
FUSION = "fusion_model.fusion_project.weight"
ENCODER = "multi_scale_attention.encoder.encoder.layer.0.output.dense.bias"
ALIAS = (
    "multi_scale_attention.multi_scale_attention.local_attention.encoder.layer.0.output.dense.bias"
)


@pytest.fixture
def weights():
    return dict(read_torch_file(GOLDEN.path))


def test_running_statistics_are_read_if_the_config_uses_them():
    variables = load_dsaml_checkpoint(GOLDEN.path, CONFIG)
    mean = GOLDEN.arrays["sd/spectrogram_feature_extractor.feature_extractor.1.bn.running_mean"]
    np.testing.assert_array_equal(variables["batch_stats"]["adapter"]["norm_2"]["mean"], mean)
    assert set(load_dsaml_checkpoint(GOLDEN.path, GOLDEN.config("clip"))) == {"params"}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(variables))


def test_every_problem_is_listed(weights):
    weights[FUSION] = weights[FUSION][:, :-1]
    del weights["sequence_predict_model.layers.0.bias"]
    weights["surprise"] = np.zeros(3)
    weights[ALIAS] = weights[ALIAS] + 1
    with pytest.raises(UserError) as error:
        variables_from_release(weights, CONFIG, source="x.pt")
    sentence = str(error.value)
    for part in (
        "x.pt",
        f"{FUSION} has shape (16, 15), expected (16, 16)",
        "sequence_predict_model.layers.0.bias is missing",
        "surprise is unknown",
        f"{ALIAS} differs from {ENCODER}",
    ):
        assert part in sentence


def test_an_extra_layer_is_rejected():
    fewer = DSAMLConfig(**GOLDEN.sizes | {"layers": 1}, normalization="running")
    with pytest.raises(UserError, match=r"layer\.1\..* is unknown"):
        load_dsaml_checkpoint(GOLDEN.path, fewer)


def test_default_sizes_reject_weights_of_other_sizes():
    with pytest.raises(UserError, match="expected \\(1024, 1024\\)"):
        load_dsaml_checkpoint(GOLDEN.path)


def test_golden_json_names_every_weight(weights):
    names = json.loads(GOLDEN.path.with_suffix(".json").read_text())["state_dict"]
    assert {name: list(value.shape) for name, value in weights.items()} == names
