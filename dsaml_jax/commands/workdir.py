"""A run's folder: what it was asked to do, with which versions, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
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

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.fingerprint import differences
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.compilation_cache import enable_compilation_cache  # noqa: F401
from dsaml_jax.runtime.files import PARTIAL, cannot_write, write_json

LOG = logging.getLogger(__name__)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "librosa")

LOCK = ".lock"

OTHERS = {"preparation", LOCK}
"""What may lie in a folder in which a run begins: the report of --mode=prepare."""

MAY_CHANGE = {
    "data": ("root", "prepared", "processes", "beam_options", "on_device"),
    "population": ("checkpoint_every", "skip_at_most"),
    "meta": ("checkpoint_every", "skip_at_most"),
    "evaluation": ("figures",),
}
"""Fields that a run may be gone on with other values of: they change nothing of its weights. The
data themselves must stay, wherever they are now; checkpoints know them by their fingerprint."""


@contextlib.contextmanager
def lock_workdir(
    path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool
) -> Iterator[Path]:
    """`open_workdir`, and no other process may do so until this context is left.

    Raises:
      UserError: as `open_workdir`; or another process is writing there.
    """
    folder = open_workdir(path, experiment, fresh=fresh)
    with _locked(folder):
        # Between the look and the lock another run may have begun here.
        open_workdir(path, experiment, fresh=fresh)
        for partial in (*folder.glob(f"*{PARTIAL}"), *folder.glob(f"figures/*{PARTIAL}")):
            partial.unlink(missing_ok=True)
        yield folder


def open_workdir(path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool) -> Path:
    """The folder of a run, made if need be, with `config.json` and `versions.json`.

    A folder that holds a run of the same config is gone on with; fields in `MAY_CHANGE` may differ.

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
        raise cannot_write(folder, error, "choose another --workdir or mend that") from error
    return folder


def resolved_config(experiment: Experiment) -> dict[str, Any]:
    """Every field as JSON holds it."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
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
    """Raises UserError unless the config in the file is the resolved one, but for `MAY_CHANGE`."""
    try:
        begun = json.loads(config.read_text())
    except ValueError as error:
        raise UserError(
            f"{config} is damaged ({error}); choose another --workdir, or mend the file."
        ) from error
    different = differences(_fixed(begun), _fixed(resolved))
    if different:
        raise UserError(
            f"{config.parent} holds another experiment ({'; '.join(different)}); "
            "choose another --workdir, or delete that one."
        )
    changed = differences(begun, resolved)
    if changed:
        LOG.info("%s is gone on with; %s", config.parent, "; ".join(changed))


def _fixed(resolved: dict[str, Any]) -> dict[str, Any]:
    """A resolved config without the fields that may change."""
    return {
        name: {k: v for k, v in value.items() if k not in MAY_CHANGE[name]}
        if name in MAY_CHANGE
        else value
        for name, value in resolved.items()
    }


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds `.lock` in the folder; the system lets go of it however this process ends."""
    try:
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise cannot_write(folder, error, "choose another --workdir or mend that") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is being written by another run; wait for its end, or choose another "
                "--workdir."
            ) from error
        except OSError as error:  # a file system without locks
            LOG.warning("%s cannot be locked (%s): start no second run there", folder, error)
        yield
