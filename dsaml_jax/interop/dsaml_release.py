"""Weights of the PyTorch release of DSAML, as variables of this model.

The release stores one shared encoder under three names (`encoder`, and the aliases
`local_attention` and `global_attention`); its convolutions are [out, in, rows, columns] and its
linear layers [out, in].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.errors import UserError
from dsaml_jax.interop.torch_file import pick_state_dict, read_torch_file
from dsaml_jax.model import DSAMLConfig, initialize

_ALIAS = re.compile(r"^multi_scale_attention\.multi_scale_attention\.(local|global)_attention\.")
_ENCODER = "multi_scale_attention.encoder."
_LAYER = _ENCODER + "encoder.layer.{}."

_MODULES = {
    "adapter/conv_1": "spectrogram_feature_extractor.feature_extractor.0.conv",
    "adapter/norm_1": "spectrogram_feature_extractor.feature_extractor.0.bn",
    "adapter/conv_2": "spectrogram_feature_extractor.feature_extractor.1.conv",
    "adapter/norm_2": "spectrogram_feature_extractor.feature_extractor.1.bn",
    "adapter/conv_3": "spectrogram_feature_extractor.conv1x1",
    "fusion/project_local": "fusion_model.spectrogram_feature_project",
    "fusion/mix": "fusion_model.fusion_project",
    "predictor/hidden": "sequence_predict_model.layers.0",
    "predictor/output": "sequence_predict_model.layers.2",
}
_LAYER_MODULES = {
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "output_norm": "output.LayerNorm",
}
_LSTM_WEIGHTS = {
    "input/kernel": "weight_ih_l0",
    "input/bias": "bias_ih_l0",
    "recurrent": "weight_hh_l0",
    "recurrent_bias": "bias_hh_l0",
}


def load_dsaml_checkpoint(path: str | Path, config: DSAMLConfig | None = None) -> dict[str, Any]:
    """Returns the variables of `DSAML(config)` from a `.pt` file of the release.

    Reads the file without PyTorch and without executing anything in it. The file contains the
    model's `state_dict`, either directly or under one key of a dictionary. The running statistics
    of normalization layers are returned if the config tracks them.

    Args:
      path: Path of the file.
      config: Sizes of the model; defaults to the release's (`DSAMLConfig()` with normalization
        "running").

    Returns:
      {"params": ..., "batch_stats": ...}; "batch_stats" only with normalization "running".

    Raises:
      UserError: The file is invalid; weights are missing, have a wrong shape or are unknown; or
        aliases of one weight differ. All such weights are listed.
    """
    config = config or DSAMLConfig(normalization="running")
    return variables_from_release(
        pick_state_dict(read_torch_file(path), path), config, source=str(path)
    )


def variables_from_release(
    weights: Mapping[str, np.ndarray], config: DSAMLConfig, source: str = "the state_dict"
) -> dict[str, Any]:
    """Converts the release's named arrays to variables; see `load_dsaml_checkpoint`."""
    names = release_names(config)
    problems = []
    leaves = {}
    for path, shape in _release_shapes(weights, config, names).items():
        name = names[path]
        if name not in weights:
            problems.append(f"{name} is missing")
        elif weights[name].shape != shape:
            problems.append(f"{name} has shape {weights[name].shape}, expected {shape}")
        else:
            value = weights[name].transpose(np.argsort(_axes(path, weights[name].ndim)))
            leaves[path] = jnp.asarray(value, config.param_dtype)
    problems += _alias_problems(weights)
    known = set(names.values())
    for name in weights:
        tracked = name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))
        if not (name in known or tracked or _ALIAS.match(name)):
            problems.append(f"{name} is unknown")
    if problems:
        raise UserError(
            f"{source} does not contain the weights of this model: {'; '.join(problems)}; set the "
            "sizes with which it was trained (model.dim, model.layers, ...)."
        )
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def release_names(config: DSAMLConfig) -> dict[str, str]:
    """Returns {path of a variable here: its name in the release}, with aliases resolved."""
    names = {}
    for module, released in _MODULES.items():
        if module == "fusion/mix" and not config.fusion_linear:
            continue
        weight = "scale" if "norm" in module else "kernel"
        names[f"params/{module}/{weight}"] = f"{released}.weight"
        names[f"params/{module}/bias"] = f"{released}.bias"
    for i in range(config.layers):
        layer, released = f"params/transformer/layer_{i}/", _LAYER.format(i)
        for module, name in _LAYER_MODULES.items():
            weight = "scale" if "norm" in module else "kernel"
            names[f"{layer}{module}/{weight}"] = f"{released}{name}.weight"
            names[f"{layer}{module}/bias"] = f"{released}{name}.bias"
        if config.position != "none":
            distance = "attention.attention.distance_embedding.weight"
            names[f"{layer}attention/distance"] = released + distance
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        for weight, released in _LSTM_WEIGHTS.items():
            names[f"params/predictor/{direction}/{weight}"] = (
                f"sequence_predict_model.bilstm.{released}{suffix}"
            )
    if config.normalization == "running":
        for norm in ("norm_1", "norm_2"):
            released = _MODULES[f"adapter/{norm}"]
            names[f"batch_stats/adapter/{norm}/mean"] = f"{released}.running_mean"
            names[f"batch_stats/adapter/{norm}/variance"] = f"{released}.running_var"
    return names


def axes_to_release(path: str, value: np.ndarray) -> np.ndarray:
    """Transposes a variable to the release's order of axes: [..., in, out] -> [out, in, ...]."""
    return value.transpose(_axes(path, value.ndim))


def _axes(path: str, rank: int) -> tuple[int, ...]:
    """Returns our axis for each of the release's axes."""
    if path.endswith(("/kernel", "/recurrent")):
        return (3, 2, 0, 1) if rank == 4 else (1, 0)
    return tuple(range(rank))


def _release_shapes(
    weights: Mapping[str, np.ndarray], config: DSAMLConfig, names: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Returns {path of a variable here: its shape in the release}.

    The released model's embedding is as wide as the model. The size of the log-mel image affects
    only the input width of `project_local`, which is therefore taken from the file.
    """
    variables = jax.eval_shape(
        lambda key: initialize(config, key, image=(51, 128), embedding_dim=config.dim),
        jax.random.key(0),
    )
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(variables, sep="/")
    shapes = {}
    for path in names:
        shape = leaves[path].shape
        shapes[path] = tuple(shape[axis] for axis in _axes(path, len(shape)))
    projection = "params/fusion/project_local/kernel"
    stored = weights.get(names[projection])
    if stored is not None and stored.ndim == 2:
        shapes[projection] = (config.dim, stored.shape[1])
    return shapes


def _alias_problems(weights: Mapping[str, np.ndarray]) -> list[str]:
    """Describes aliases that differ from, or name no weight of, the shared encoder."""
    problems = []
    for name in weights:
        original = _ALIAS.sub(_ENCODER, name)
        if original == name:
            continue
        if original not in weights:
            problems.append(f"{name} is an alias of {original}, which is missing")
        elif not np.array_equal(weights[name], weights[original]):
            problems.append(f"{name} differs from {original}, although it is an alias of it")
    return problems
