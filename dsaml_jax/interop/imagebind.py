"""The audio weights of ImageBind's checkpoint, as variables of `dsaml_jax.audio.imagebind`.

ImageBind's weights are licensed CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/) by
Meta Platforms: the weights, anything converted from them and the embeddings computed with them are
not for commercial use. They are not part of this project; users download `imagebind_huge.pth`
(4.5 GB, all modalities) from the address in ImageBind's repository and convert it once: only the
audio part, about 0.35 GB, is read and kept.
"""

from __future__ import annotations

import json
import logging
import operator
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from dsaml_jax.audio.imagebind import (
    IMAGEBIND_HUGE,
    ImageBindAudio,
    ImageBindConfig,
    Variables,
)
from dsaml_jax.errors import UserError
from dsaml_jax.interop.torch_file import pick_state_dict, read_torch_file
from dsaml_jax.runtime.arrays import read_arrays

LOG = logging.getLogger(__name__)

LICENSE = (
    "ImageBind's weights (Meta Platforms) are licensed CC BY-NC 4.0: no commercial use of them or "
    "of the embeddings that they give; https://creativecommons.org/licenses/by-nc/4.0/"
)
_AUDIO = (
    "modality_preprocessors.audio.",
    "modality_trunks.audio.",
    "modality_heads.audio.",
    "modality_postprocessors.audio.",
)
_METADATA = "about"
_LARGEST_SIZE = 100_000
_SIZES = ("width", "blocks", "heads", "output", "bins", "frames", "patch", "stride")


def read_imagebind_checkpoint(
    path: str | Path, config: ImageBindConfig = IMAGEBIND_HUGE
) -> Variables:
    """Returns the variables of `ImageBindAudio(config)` from ImageBind's `.pth`, without PyTorch.

    Raises:
      UserError: The file is no such checkpoint, or weights of the audio part are missing, have a
        wrong shape, or do not occur in `config` (listed by name).
    """
    contents = read_torch_file(path, keep=lambda name: name.startswith(_AUDIO))
    if not contents:
        raise UserError(
            f"{path}: contains no weights of ImageBind's audio tower ({_AUDIO[0]}*); give the path "
            "of imagebind_huge.pth."
        )
    LOG.warning("%s: %s", path, LICENSE)
    given = pick_state_dict(contents, path)
    weights = list(_weights(config))
    shapes = {weight.name: weight.shape for weight in weights}
    _check({name: array.shape for name, array in given.items()}, shapes, path)
    flat = {
        ("params", *weight.path): np.array(
            weight.convert(given[weight.name]), np.float32, order="C"
        )
        for weight in weights
    }
    return traverse_util.unflatten_dict(flat)


def convert_imagebind(
    source: str | Path, target: str | Path, config: ImageBindConfig = IMAGEBIND_HUGE
) -> None:
    """Writes the audio part of ImageBind's `.pth` as an `.npz` file, atomically.

    Raises:
      UserError: As `read_imagebind_checkpoint`, or `target` cannot be written.
    """
    variables = read_imagebind_checkpoint(source, config)
    flat: dict[str, Any] = traverse_util.flatten_dict(variables, sep="/")
    sizes = {name: getattr(config, name) for name in _SIZES}
    metadata = json.dumps({"license": LICENSE, "config": sizes})
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            try:
                np.savez(file, **{_METADATA: np.array(metadata)}, **flat)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, target)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror}); choose another path."
        ) from error


def load_imagebind(path: str | Path) -> tuple[ImageBindConfig, Variables]:
    """Returns the tower's config and variables from a file written by `convert_imagebind`.

    Raises:
      UserError: The file does not exist, is damaged, or was not written by `convert_imagebind`.
    """
    remedy = "give the path of a file that convert_imagebind wrote"
    flat = read_arrays(path, remedy=remedy)
    try:
        config = _sizes(json.loads(str(flat.pop(_METADATA))), most_blocks=len(flat))
        image = jax.ShapeDtypeStruct((1, 1, config.bins, config.frames), np.float32)
        tower = jax.eval_shape(ImageBindAudio(config).init, jax.random.key(0), image)
    # Sizes that do not fit together can make the tower raise nearly anything.
    except Exception as error:
        raise UserError(
            f"{path}: damaged, or not a file that convert_imagebind wrote; convert ImageBind's "
            ".pth again."
        ) from error
    leaves: dict[str, Any] = traverse_util.flatten_dict(tower, sep="/")
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    _check({name: array.shape for name, array in flat.items()}, shapes, path)
    LOG.warning("%s: %s", path, LICENSE)
    return config, traverse_util.unflatten_dict(flat, sep="/")


def _sizes(metadata: Any, most_blocks: int) -> ImageBindConfig:
    """Returns the config in the metadata; raises an exception if a size is impossible."""
    sizes = {name: operator.index(metadata["config"][name]) for name in _SIZES}
    if not all(1 <= size <= _LARGEST_SIZE for size in sizes.values()):
        raise ValueError("a size that is not positive or is too large")
    if sizes["blocks"] > most_blocks:
        raise ValueError("more blocks than arrays")
    return ImageBindConfig(**sizes)


class _Weight(NamedTuple):
    name: str  # in the checkpoint
    shape: tuple[int, ...]  # in the checkpoint
    path: tuple[str, ...]  # in the variables here
    convert: Callable[[np.ndarray], np.ndarray]


def _weights(config: ImageBindConfig) -> Iterator[_Weight]:
    """Yields each weight of the audio tower, with its name and shape in the checkpoint."""
    width, patch = config.width, config.patch

    def same(array: np.ndarray) -> np.ndarray:
        return array

    def norm(name: str, *path: str) -> Iterator[_Weight]:
        yield _Weight(f"{name}.weight", (width,), (*path, "scale"), same)
        yield _Weight(f"{name}.bias", (width,), (*path, "bias"), same)

    def dense(name: str, inputs: int, outputs: int, *path: str) -> Iterator[_Weight]:
        yield _Weight(f"{name}weight", (outputs, inputs), (*path, "kernel"), np.transpose)
        yield _Weight(f"{name}bias", (outputs,), (*path, "bias"), same)

    before, trunk, head, after = _AUDIO
    stem = _Weight(
        f"{before}rgbt_stem.proj.weight",
        (width, 1, patch, patch),
        ("stem", "kernel"),
        lambda array: array.transpose(2, 3, 1, 0),
    )
    positions = f"{before}pos_embedding_helper.pos_embed"
    yield stem
    yield from norm(f"{before}rgbt_stem.norm_layer", "stem_norm")
    yield _Weight(f"{before}cls_token", (1, 1, width), ("class_token",), same)
    yield _Weight(positions, (1, config.tokens, width), ("positions",), same)
    for block in range(config.blocks):
        source, target = f"{trunk}blocks.{block}.", f"block_{block}"
        attention = (target, "attention")
        yield from norm(f"{source}norm_1", target, "norm_1")
        yield from dense(f"{source}attn.in_proj_", width, 3 * width, *attention, "in_projection")
        yield _Weight(f"{source}attn.bias_k", (1, 1, width), (*attention, "bias_key"), same)
        yield _Weight(f"{source}attn.bias_v", (1, 1, width), (*attention, "bias_value"), same)
        yield from dense(f"{source}attn.out_proj.", width, width, *attention, "out_projection")
        yield from norm(f"{source}norm_2", target, "norm_2")
        yield from dense(f"{source}mlp.fc1.", width, 4 * width, target, "mlp_1")
        yield from dense(f"{source}mlp.fc2.", 4 * width, width, target, "mlp_2")
    yield from norm(f"{head}0", "head_norm")
    yield _Weight(f"{head}2.weight", (config.output, width), ("head", "kernel"), np.transpose)
    yield _Weight(f"{after}1.log_logit_scale", (), ("log_scale",), same)


def _check(
    given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: str | Path
) -> None:
    """Raises UserError, listing all names, if weights are missing, misshapen or unknown."""
    faults = [f"{name} is missing" for name in expected if name not in given]
    faults += [
        f"{name} has shape {given[name]} where {shape} was expected"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    faults += [f"{name} is unknown" for name in given if name not in expected]
    if faults:
        raise UserError(
            f"{path}: not the audio tower described by the config: {'; '.join(faults)}: give a "
            "file and sizes that belong together."
        )
