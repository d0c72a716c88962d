"""The audio weights of ImageBind's checkpoint, as variables of `dsaml_jax.audio.imagebind`.

ImageBind's weights are licensed CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/) by
Meta Platforms: they, what is converted from them and the embeddings that they give are not for
commercial use. Nothing of them comes with this project; the user downloads `imagebind_huge.pth`
(4.5 GB, all modalities) from the address in ImageBind's repository and converts it once: only the
audio part, about 0.35 GB, is read and kept.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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

LOG = logging.getLogger(__name__)

LICENCE = (
    "ImageBind's weights (Meta Platforms) are licensed CC BY-NC 4.0: no commercial use of them or "
    "of the embeddings that they give; https://creativecommons.org/licenses/by-nc/4.0/"
)
_AUDIO = (
    "modality_preprocessors.audio.",
    "modality_trunks.audio.",
    "modality_heads.audio.",
    "modality_postprocessors.audio.",
)
_ABOUT = "about"
_SIZES = ("width", "blocks", "heads", "output", "bins", "frames", "patch", "stride")


def read_imagebind_checkpoint(
    path: str | Path, config: ImageBindConfig = IMAGEBIND_HUGE
) -> Variables:
    """Variables of `ImageBindAudio(config)` from ImageBind's `.pth`, without torch.

    Raises:
      UserError: not such a file, or weights of the audio part are missing, misshapen or more than
        `config` has (listed by name).
    """
    contents = read_torch_file(path, keep=lambda name: name.startswith(_AUDIO))
    if not contents:
        raise UserError(
            f"{path}: holds no weights of ImageBind's audio tower ({_AUDIO[0]}*); give the path of "
            "imagebind_huge.pth."
        )
    LOG.warning("%s: %s", path, LICENCE)
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
    """Writes the audio part of ImageBind's `.pth` as an `.npz` of ours, whole or not at all.

    Raises:
      UserError: as `read_imagebind_checkpoint`; or `target` cannot be written.
    """
    flat = traverse_util.flatten_dict(read_imagebind_checkpoint(source, config), sep="/")
    sizes = {name: getattr(config, name) for name in _SIZES}
    about = json.dumps({"license": LICENCE, "config": sizes})
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            try:
                np.savez(file, **{_ABOUT: np.array(about)}, **flat)
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
    """The tower's config and variables from a file of `convert_imagebind`.

    Raises:
      UserError: no such file, or not such a file, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            config = ImageBindConfig(**json.loads(str(file[_ABOUT]))["config"])
            flat = {name: file[name] for name in file.files if name != _ABOUT}
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); give the path of a file that "
            "convert_imagebind wrote."
        ) from error
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged, or not a file that convert_imagebind wrote; convert ImageBind's "
            ".pth again."
        ) from error
    image = jax.ShapeDtypeStruct((1, 1, config.bins, config.frames), np.float32)
    tower = jax.eval_shape(ImageBindAudio(config).init, jax.random.key(0), image)
    shapes = {k: v.shape for k, v in traverse_util.flatten_dict(tower, sep="/").items()}
    _check({name: array.shape for name, array in flat.items()}, shapes, path)
    LOG.warning("%s: %s", path, LICENCE)
    return config, traverse_util.unflatten_dict(flat, sep="/")


class _Weight(NamedTuple):
    name: str  # in the checkpoint
    shape: tuple[int, ...]  # in the checkpoint
    path: tuple[str, ...]  # of ours
    convert: Callable[[np.ndarray], np.ndarray]


def _weights(config: ImageBindConfig) -> Iterator[_Weight]:
    """Every weight of the audio tower: its name and shape there, its place here."""
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
        there, here = f"{trunk}blocks.{block}.", f"block_{block}"
        attention = (here, "attention")
        yield from norm(f"{there}norm_1", here, "norm_1")
        yield from dense(f"{there}attn.in_proj_", width, 3 * width, *attention, "in_projection")
        yield _Weight(f"{there}attn.bias_k", (1, 1, width), (*attention, "bias_key"), same)
        yield _Weight(f"{there}attn.bias_v", (1, 1, width), (*attention, "bias_value"), same)
        yield from dense(f"{there}attn.out_proj.", width, width, *attention, "out_projection")
        yield from norm(f"{there}norm_2", here, "norm_2")
        yield from dense(f"{there}mlp.fc1.", width, 4 * width, here, "mlp_1")
        yield from dense(f"{there}mlp.fc2.", 4 * width, width, here, "mlp_2")
    yield from norm(f"{head}0", "head_norm")
    yield _Weight(f"{head}2.weight", (config.output, width), ("head", "kernel"), np.transpose)
    yield _Weight(f"{after}1.log_logit_scale", (), ("log_scale",), same)


def _check(
    given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: str | Path
) -> None:
    """Refuses names that are missing, misshapen or unknown; one sentence names them all."""
    faults = [f"{name} is missing" for name in expected if name not in given]
    faults += [
        f"{name} has shape {given[name]} where {shape} was expected"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    faults += [f"{name} is unknown" for name in given if name not in expected]
    if faults:
        raise UserError(
            f"{path}: not the audio tower that the config describes: {'; '.join(faults)}: give the "
            "file and the sizes of one model."
        )
