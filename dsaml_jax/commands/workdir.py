"""The workdir of a run: its resolved config, the versions it ran with, and its results."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jax

from dsaml_jax.config.experiment import Experiment, fixed_config, resolved_config
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.differences import differences
from dsaml_jax.runtime.files import PARTIAL, cannot_write, is_utf8, read_json_object, write_json

LOG = logging.getLogger(__name__)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "librosa")

LOCK = ".lock"

OTHERS = {"preparation", LOCK}
"""Entries that a folder may hold before a run begins there, such as --mode=prepare's report."""


@contextlib.contextmanager
def lock_workdir(
    path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool
) -> Iterator[Path]:
    """Opens a workdir and locks it until the context exits.

    Args and errors: those of `open_workdir`.

    Raises:
      UserError: also if another process holds the lock, or the workdir is removed meanwhile.
    """
    folder = _open(path, experiment, fresh=fresh)
    with _locked(folder):
        # Another run may have begun here before the lock was taken.
        open_workdir(path, experiment, fresh=fresh)
        for partial in (*folder.glob(f"*{PARTIAL}"), *folder.glob(f"figures/*{PARTIAL}")):
            partial.unlink(missing_ok=True)
        yield folder


def open_workdir(path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool) -> Path:
    """Opens or creates the folder of a run, with `config.json` and `versions.json`.

    A folder that holds a run of the same config is reused; fields in `MAY_CHANGE` may differ.
    A change of package versions or devices since it began is logged.

    Args:
      path: the folder.
      experiment: the config.
      fresh: True if a new run may begin here (training), False if one must exist (evaluation).

    Raises:
      UserError: the folder holds another experiment (the fields that differ are named), holds none
        where one must exist, or cannot be written. Nothing is written in the first two cases.
    """
    folder = _open(path, experiment, fresh=fresh)
    changed = differences(_recorded(folder / "config.json"), resolved_config(experiment))
    if changed:
        LOG.info("resuming in %s; %s", folder, "; ".join(changed))
    _compare_versions(folder / "versions.json")
    return folder


def _open(path: str | os.PathLike[str], experiment: Experiment, *, fresh: bool) -> Path:
    folder = Path(path)
    if not is_utf8(str(folder.absolute())):  # checkpoints cannot be written there
        raise UserError(f"{str(folder)!r} is not UTF-8; choose another --workdir.")
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
        "device_kind": ", ".join(sorted({device.device_kind for device in jax.devices()})),
    } | {package: importlib.metadata.version(package) for package in PACKAGES}


def _is_vacant(folder: Path) -> bool:
    return folder.is_dir() and all(
        path.name in OTHERS or path.suffix == PARTIAL for path in folder.iterdir()
    )


def _compare_versions(file: Path) -> None:
    """Logs how the versions and devices differ from those that a run began with."""
    try:
        recorded = read_json_object(file)
    except (ValueError, OSError) as error:
        LOG.warning(
            "%s cannot be read (%s): whether this run began with other versions is unknown",
            file,
            getattr(error, "strerror", None) or error,
        )
        return
    changed = differences(_relevant(recorded), _relevant(versions()))
    if changed:
        LOG.warning(
            "%s began with other versions (%s); its results may differ from those of an "
            "uninterrupted run",
            file.parent,
            "; ".join(changed),
        )


def _relevant(versions: dict[str, Any]) -> dict[str, Any]:
    """Returns the versions without the platform, whose kernel does not affect results."""
    return {name: value for name, value in versions.items() if name != "platform"}


def _check_same(config: Path, resolved: dict[str, Any]) -> None:
    """Raises UserError unless the file holds the resolved config, `MAY_CHANGE` aside."""
    different = differences(fixed_config(_recorded(config)), fixed_config(resolved))
    if different:
        raise UserError(
            f"{config.parent} holds another experiment ({'; '.join(different)}); "
            "choose another --workdir, or delete that one."
        )


def _recorded(config: Path) -> dict[str, Any]:
    """Reads `config.json`; raises UserError if it is damaged or cannot be read."""
    try:
        return read_json_object(config)
    except OSError as error:
        raise UserError(
            f"{config} cannot be read ({error.strerror}); fix that, or choose another --workdir."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{config} is damaged ({error}); choose another --workdir, or fix the file."
        ) from error


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
        try:
            yield
        except Exception as error:
            if _is_removed(file):
                raise _removed(folder) from error
            raise
        if _is_removed(file):
            raise _removed(folder)


def _is_removed(file: IO[str]) -> bool:
    return os.fstat(file.fileno()).st_nlink == 0


def _removed(folder: Path) -> UserError:
    return UserError(
        f"{folder} was removed while the run was writing there; what it held is lost: delete what "
        "is left of it, and run the same command again."
    )
