"""The golden numbers of ImageBind's audio tower, and its checkpoint."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np

from dsaml_jax.audio.imagebind import ImageBindConfig
from tests import torch_files

_OWN = Path(__file__).parent / "golden"


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(_folder() / "imagebind_audio.npz") as file:
        return dict(file)


@functools.cache
def config() -> ImageBindConfig:
    sizes = json.loads((_folder() / "imagebind_audio.json").read_text())
    return ImageBindConfig(
        width=sizes["audio_embed_dim"],
        blocks=sizes["audio_num_blocks"],
        heads=sizes["audio_num_heads"],
        output=sizes["out_embed_dim"],
    )


def weights() -> dict[str, np.ndarray]:
    """Returns the audio part of the state dict."""
    return {name[3:]: array for name, array in arrays().items() if name.startswith("sd/")}


def checkpoint(path: Path) -> Path:
    """ImageBind's own checkpoint, where the folder has it; else one of our making at `path`."""
    given = _folder() / "imagebind_checkpoint.pth"
    if given.exists():
        return given
    other = {"modality_trunks.vision.blocks.0.norm_1.weight": np.ones(3, np.float32)}
    return torch_files.write_state_dict(path, other | weights())


def _folder() -> Path:
    given = Path(os.environ.get("DSAML_GOLDEN", _OWN))
    return given if (given / "imagebind_audio.npz").exists() else _OWN
