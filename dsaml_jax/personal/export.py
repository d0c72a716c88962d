"""A published model: a folder with everything that predicting needs, and nothing of the data.

    model.json               sizes of the network, inner loop, features, hops, hash
    weights.npz              arrays "STAGE/params/...", "STAGE/rates/..." and
                             "STAGE/batch_stats/..." of the stages population and, if the model
                             adapts, meta
    embedding_scaling.npz    mean and deviation of the global embedding
    versions.json            of the packages with which it was written

The files are uncompressed `.npz` archives of plain arrays and JSON: nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.config.freeze import freeze
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.errors import UserError
from dsaml_jax.meta import MetaParams
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.model.weights import Weights
from dsaml_jax.personal.shared import (
    SCALING,
    SharedModel,
    named_arrays,
    read_scaling,
    unflat,
    weights_shapes,
)
from dsaml_jax.runtime.arrays import read_arrays
from dsaml_jax.runtime.files import (
    PARTIAL,
    atomic_write,
    cannot_write,
    read_json_object,
    write_json,
)

FORMAT = "dsaml_jax model 1"
MODEL, WEIGHTS, VERSIONS = "model.json", "weights.npz", "versions.json"
_REMEDY = "export the model again"


def write_export(shared: SharedModel, folder: Path, versions: dict[str, Any]) -> None:
    """Writes a shared model to a new folder, which appears once it is complete.

    Raises:
      UserError: the folder exists and is not empty, or cannot be written.
    """
    with new_folder(folder) as partial:
        arrays = named_arrays(shared)
        weights = {name: value for name, value in arrays.items() if not name.startswith("scaling/")}
        write_arrays(partial / WEIGHTS, weights)
        shared.scaling.save(partial / SCALING)
        write_json(partial / VERSIONS, versions)
        content = {
            "format": FORMAT,
            "hash": shared.hash,
            "adapts": shared.meta is not None,
            "hops": shared.hops,
            "model": dataclasses.asdict(shared.model),
            "inner": dataclasses.asdict(shared.inner),
            "audio": dataclasses.asdict(shared.audio),
        }
        write_json(partial / MODEL, content)


def open_export(folder: Path, embedding_weights: str = "") -> SharedModel:
    """Reads a folder that `write_export` wrote.

    Raises:
      UserError: a file is missing, damaged, or of another version; or the embedding needs weights.
    """
    try:
        content = read_json_object(folder / MODEL)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder / MODEL} cannot be read ({reason}); {_REMEDY}.") from error
    if content.get("format") != FORMAT:
        raise UserError(
            f"{folder / MODEL} has the format {str(content.get('format'))[:60]!r}; expected "
            f"{FORMAT!r}: {_REMEDY} with this version."
        )
    model = freeze(DSAMLConfig, content.get("model"), "model")
    inner = freeze(InnerConfig, content.get("inner"), "inner")
    audio = freeze(AudioConfig, content.get("audio"), "audio")
    stages = ("population", "meta") if content.get("adapts") else ("population",)
    like = {
        stage: weights_shapes(model, inner if stage == "meta" else inner.without_steps(), audio)
        for stage in stages
    }
    arrays = read_arrays(folder / WEIGHTS, remedy=_REMEDY)
    trees = unflat(arrays, like, folder / WEIGHTS)
    weights = {
        stage: Weights(MetaParams(tree["params"], tree["rates"]), tree["batch_stats"])
        for stage, tree in trees.items()
    }
    shared = SharedModel(
        source=str(folder),
        model=model,
        inner=inner,
        audio=audio,
        hops=tuple(content.get("hops", ())),
        scaling=read_scaling(folder / SCALING, _REMEDY, audio),
        population=weights["population"],
        meta=weights.get("meta"),
        embedding_weights=embedding_weights,
    )
    if shared.hash != content.get("hash"):
        raise UserError(f"{folder} has changed since it was exported; {_REMEDY}.")
    return shared


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays as an uncompressed `.npz`, atomically."""
    with atomic_write(path) as file:
        # The type checker takes the names for those of other parameters.
        savez: Any = np.savez
        savez(file, **arrays)


def check_new(folder: Path) -> None:
    """Raises UserError if a folder exists and is not empty."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not empty; choose another --workdir.")
    except OSError as error:
        raise cannot_write(folder, error, "choose another --workdir") from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a folder that is renamed to `folder` at the end; an error leaves nothing.

    Raises:
      UserError: `folder` exists and is not empty, or cannot be written.
    """
    check_new(folder)
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(
            dir=folder.absolute().parent, prefix=f".{folder.name}", suffix=PARTIAL
        )
        try:
            yield Path(partial)
            os.chmod(partial, 0o755)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, error, "choose another --workdir or fix that") from error
