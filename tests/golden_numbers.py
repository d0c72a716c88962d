"""The golden numbers of the PyTorch release: where they lie and how they are compared.

Every NAME.npz + NAME.json + NAME.pt in the folder that DSAML_GOLDEN names (default: tests/golden)
is one set; its sizes are read from the json. See `tests/golden/README.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.interop import dsaml_release
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.model.objective import Batch

FOLDER = Path(os.environ.get("DSAML_GOLDEN") or Path(__file__).parent / "golden")
SETS = sorted(
    path.with_suffix("")
    for path in FOLDER.glob("*.npz")
    if path.with_suffix(".json").exists() and path.with_suffix(".pt").exists()
)


class Golden:
    """One set of golden numbers, in one precision."""

    def __init__(self, stem: Path, dtype: str):
        self.path = stem.with_suffix(".pt")
        self.arrays = dict(np.load(stem.with_suffix(".npz")))
        self.json = json.loads(stem.with_suffix(".json").read_text())
        sizes, shapes = self.json["config"], self.json["state_dict"]
        layer = "multi_scale_attention.encoder.encoder.layer.0."
        self.sizes = dict(
            dim=sizes["dim"],
            heads=sizes["heads"],
            layers=sizes["layers"],
            feed_forward=shapes[layer + "intermediate.dense.weight"][0],
            local_width=sizes["local"],
            global_width=sizes["glob"],
            position={"absolute": "none"}.get(sizes["pos"], sizes["pos"]),
            lstm_dim=shapes["sequence_predict_model.bilstm.weight_hh_l0"][1],
            predictor_dim=shapes["sequence_predict_model.layers.0.weight"][0],
            dropout=0.0,
            dtype=dtype,
            param_dtype=dtype,
        )
        self.dtype = dtype

    def config(self, normalization: str) -> DSAMLConfig:
        return DSAMLConfig(**self.sizes, normalization=normalization)

    def variables(self, normalization: str):
        return dsaml_release.load_dsaml_checkpoint(self.path, self.config(normalization))

    def batch(self, part: str, batch_stats) -> Batch:
        curve = np.stack([self.arrays[f"{part}/{name}"] for name in ("arousal", "valence")], -1)
        return Batch(
            log_mel=jnp.asarray(self.arrays[f"{part}/log_mel"], self.dtype),
            embedding=jnp.asarray(self.arrays[f"{part}/global"][:, 0], self.dtype),
            curve=jnp.asarray(curve, self.dtype),
            valid=jnp.ones(curve.shape[:2], bool),
            batch_stats=batch_stats,
        )

    def assert_gradients_match(self, gradients, prefix: str, relative: float) -> None:
        """Per array, |ours - theirs| <= relative |theirs|; where theirs is zero, see below.

        Key biases add the same to all scores of a row, and a convolution's bias is taken off again
        by batch statistics: those gradients are zero but for rounding, and are compared with 1e-7
        of the largest array's norm.
        """
        ours = to_release(gradients, self.config("batch"))
        theirs = {name: self.arrays[f"{prefix}/{name}"] for name in ours}
        assert {f"{prefix}/{name}" for name in ours} == {
            name
            for name in self.arrays
            if name.startswith(f"{prefix}/") and "query_loss" not in name
        }
        largest = max(np.linalg.norm(value) for value in theirs.values())
        off = {}
        for name, value in theirs.items():
            error = np.linalg.norm(ours[name] - value)
            truly_zero = name.endswith(("key.bias", "0.conv.bias", "1.conv.bias"))
            allowed = 1e-7 * largest if truly_zero else relative * np.linalg.norm(value)
            if not error <= allowed:
                off[name] = f"error {error:.3g}, allowed {allowed:.3g}"
        assert not off, off


def to_release(params, config: DSAMLConfig) -> Mapping[str, np.ndarray]:
    """Our params (or gradients) under the release's names, with its axes; float64."""
    flat = flax.traverse_util.flatten_dict({"params": jax.device_get(params)}, sep="/")
    names = dsaml_release.release_names(config)
    return {
        names[path]: dsaml_release.axes_to_release(path, np.asarray(value, np.float64))
        for path, value in flat.items()
    }


def relative_error(ours, theirs) -> float:
    """Norm of the difference over the norm."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
