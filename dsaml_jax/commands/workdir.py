"""The workdir of a run: its resolved config, the versions it ran with, and its results."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from dsaml_jax.config.experiment import Experiment, resolved_config
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.differences import differences
from dsaml_jax.runtime.files import PARTIAL, cannot_write, write_json

LOG = logging.getLogger(__name__)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "librosa")

LOCK = ".lock"

OTHERS = {"preparation", LOCK}
"""Entries that a folder may hold before a run begins there, such as --mode=prepare's report."""

MAY_CHANGE = {
    "data": ("root", "prepared", "processes", "beam_options", "on_device"),
    "population": ("checkpoint_every", "skip_at_most"),
    "meta": ("checkpoint_every", "skip_at_most"),
    "evaluation": ("figures",),
}
"""Fields that may change when a run resumes; none affects the weights. The data may move but must
stay the same: checkpoints hold their fingerprint."""


@contextlib.contextmanager
def lock_workdir(
    path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool
) -> Iterator[Path]:
    """Opens a workdir and locks it until the context exits.

    Args and errors: those of `open_workdir`.

    Raises:
      UserError: also if another process holds the lock.
    """
    folder = open_workdir(path, experiment, fresh=fresh)
    with _locked(folder):
        # Another run may have begun here before the lock was taken.
        open_workdir(path, experiment, fresh=fresh)
        for partial in (*folder.glob(f"*{PARTIAL}"), *folder.glob(f"figures/*{PARTIAL}")):
            partial.unlink(missing_ok=True)
        yield folder


def open_workdir(path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool) -> Path:
    """Opens or creates the folder of a run, with `config.json` and `versions.json`.

    A folder that holds a run of the same config is reused; fields in `MAY_CHANGE` may differ.

    Args:
      path: the folder.
      experiment: the config.
      fresh: True if a new run may begin here (training), False if one must exist (evaluation).

    Raises:
      UserError: the folder holds another experiment (the fields that differ are named), holds none
        where one must exist, or cannot be written. Nothing is written in the first two cases.
    """
    folder = Path(path)
    config = folder / "config.json"
    resolved = resolved_config(experiment)
    try:
        if config.exists():
            _check_same(config, resolved)
            return folder
        if folder.exists() and not _is_vacant(folder):
            raise UserError(f"{folder} is not empty and holds no run; choose another --workdir.")
        if not fresh:
            raise UserError(f"{folder} holds no run to evaluate; train one with --mode=train.")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "versions.json", versions())
        write_json(config, resolved)
    except OSError as error:
        raise cannot_write(folder, error, "choose another --workdir or fix that") from error
    return folder


def versions() -> dict[str, str]:
    """Returns the versions of Python, the platform, the devices, and the packages in use."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": ", ".join(str(device) for device in jax.devices()),
    } | {package: importlib.metadata.version(package) for package in PACKAGES}


def _is_vacant(folder: Path) -> bool:
    return folder.is_dir() and all(
        path.name in OTHERS or path.suffix == PARTIAL for path in folder.iterdir()
    )


def _check_same(config: Path, resolved: dict[str, Any]) -> None:
    """Raises UserError unless the file holds the resolved config, `MAY_CHANGE` aside."""
    try:
        recorded = json.loads(config.read_text())
    except ValueError as error:
        raise UserError(
            f"{config} is damaged ({error}); choose another --workdir, or fix the file."
        ) from error
    different = differences(_without_changeable(recorded), _without_changeable(resolved))
    if different:
        raise UserError(
            f"{config.parent} holds another experiment ({'; '.join(different)}); "
            "choose another --workdir, or delete that one."
        )
    changed = differences(recorded, resolved)
    if changed:
        LOG.info("resuming in %s; %s", config.parent, "; ".join(changed))


def _without_changeable(resolved: dict[str, Any]) -> dict[str, Any]:
    """Returns a resolved config without the fields that may change."""
    return {
        name: {k: v for k, v in value.items() if k not in MAY_CHANGE[name]}
        if name in MAY_CHANGE
        else value
        for name, value in resolved.items()
    }


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on `.lock`, which the system releases however this process ends."""
    try:
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise cannot_write(folder, error, "choose another --workdir or fix that") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is being written by another run; wait until it ends, or choose another "
                "--workdir."
            ) from error
        except OSError as error:  # a file system without locks
            LOG.warning("%s cannot be locked (%s): start no second run there", folder, error)
        yield
