"""A run's folder: what it was asked to do, with which versions, and what came of it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

from dsaml_jax.errors import UserError
from dsaml_jax.experiment import Experiment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "librosa")

OTHERS = {"preparation"}
"""What may lie in a folder in which a run begins: the report of --mode=prepare."""


def open_workdir(path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool) -> Path:
    """The folder of a run, made if need be, with `config.json` and `versions.json`.

    A folder that holds a run of the same config is gone on with.

    Args:
      path: of the folder.
      experiment: the resolved config.
      fresh: whether a new run may begin here (training), or there must be one (evaluation).

    Raises:
      UserError: the folder holds another experiment (the fields that differ are named), or, where
        one is needed, none; nothing is written then. Also where the folder cannot be written.
    """
    folder = Path(path)
    config = folder / "config.json"
    resolved = json.loads(json.dumps(dataclasses.asdict(experiment)))
    if config.exists():
        different = _differences(json.loads(config.read_text()), resolved)
        if different:
            raise UserError(
                f"{folder} holds another experiment ({'; '.join(different)}); "
                "choose another --workdir, or delete that one."
            )
        return folder
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= OTHERS):
        raise UserError(f"{folder} is not empty and holds no run; choose another --workdir.")
    if not fresh:
        raise UserError(f"{folder} holds no run to evaluate; train one with --mode=train.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "versions.json", versions())
        write_json(config, resolved)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another."
        ) from error
    return folder


def keep_compiled(folder: str) -> None:
    """Keeps every compiled program in a folder, for later runs."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": ", ".join(str(device) for device in jax.devices()),
    } | {package: importlib.metadata.version(package) for package in PACKAGES}


def write_json(path: Path, content: Any) -> None:
    """Writes the file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Fields in which two resolved configs differ, as 'field: old, now new'."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
    found = []
    for name in sorted(old.keys() | new.keys()):
        found += _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return found
