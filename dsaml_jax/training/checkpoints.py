"""Checkpoints of one stage: the latest two, to resume from, and the best, to evaluate."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from dsaml_jax.errors import UserError
from dsaml_jax.runtime import processes
from dsaml_jax.runtime.differences import differences
from dsaml_jax.runtime.files import cannot_write, storage_reason
from dsaml_jax.training.checkpoint_record import (
    Record,
    describe_arrays,
    make_record,
    read_record,
    state_hash,
)
from dsaml_jax.training.state import State

LOG = logging.getLogger(__name__)

_DELETED = ".deleted"
"""Folder to which checkpoints move before deletion, so that an interruption leaves none partial."""

_MISMATCHES = {
    "config": "comes from a run of another config ({}); use that run's own --workdir, or move the "
    "folder away to train this stage again.",
    "data": "was trained on other data ({}); restore those data or choose another --workdir.",
}


class Saved(NamedTuple):
    """A checkpoint as restored.

    Attributes:
      state: of training.
      metrics: of its validation; None if it has not been validated.
    """

    state: State
    metrics: dict[str, float] | None


class Checkpoints:
    """Saves and restores the checkpoints of a stage; writes in the background.

    A checkpoint is a folder named after its step, which appears once it is complete and disappears
    in one rename. It holds the whole `State`, its validation metrics if there are any, and a
    `Record`. Two are kept so that one is left if the latest is damaged.

    Args:
      folder: of the stage's checkpoints.
      run: description of the run, JSON-compatible. If it has "config" or "data", checkpoints are
        restored only if theirs are the same.

    Raises:
      UserError: the folder cannot be used, or all checkpoints in it are damaged.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any] | None = None):
        self._folder = folder
        self._run = dict(run or {})
        best = BestN(get_metric_fn=_selection, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(2), best]),
            best_fn=_selection,
            cleanup_tmp_directories=True,  # left by interrupted saves
            todelete_subdir=_DELETED,
        )
        with _storage_errors(folder):
            processes.on_process_zero(lambda: _set_unrecorded_aside(folder))
            self._delete()
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: State, metrics: Mapping[str, float] | None = None) -> None:
        """Starts saving a state; `metrics["selection"]` decides whether it is the best.

        Raises:
          UserError: this checkpoint, or the previous one, cannot be written.
        """
        step = int(state.step)
        record = make_record(self._run, state, metrics)
        with _storage_errors(self._folder):
            if not self._folder.is_dir():
                raise UserError(f"{self._folder} was removed while the run was writing there.")
            self._manager.wait_until_finished()
            if step in self._manager.all_steps():  # saved before it was validated
                self._manager.delete(step)
            self._delete()
            self._manager.save(
                step,
                args=ocp.args.StandardSave(state),
                metrics=record.metrics,
                custom_metadata=record.sealed(),
            )

    def last(self, template: State) -> Saved | None:
        """Restores the latest readable checkpoint; returns None if there is none yet.

        Damaged ones are set aside with a warning.

        Args:
          template: a state with the expected shapes and types.

        Raises:
          UserError: no checkpoint can be read, or it belongs to another run.
        """
        return self._first_readable(sorted(self._records().items(), reverse=True), template)

    def best(self, template: State) -> Saved | None:
        """Restores the best readable checkpoint, the latest among equals; None if there is none."""
        validated = [
            (_selection(record.metrics), step, record)
            for step, record in self._records().items()
            if record.metrics
        ]
        ranked = sorted(validated, key=lambda each: each[:2], reverse=True)
        return self._first_readable([each[1:] for each in ranked], template)

    def wait(self) -> None:
        """Waits until everything is on disk; raises UserError if that fails."""
        with _storage_errors(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk and ends the writing threads."""
        with _storage_errors(self._folder):
            self._manager.close()
            self._delete()

    def _records(self) -> dict[int, Record]:
        """Waits until everything is on disk; returns the records by step."""
        self.wait()
        with _storage_errors(self._folder):
            return {
                step: read_record(self._folder / str(step)) for step in self._manager.all_steps()
            }

    def _first_readable(
        self, ranked: Iterable[tuple[int, Record]], template: State
    ) -> Saved | None:
        damaged: dict[Path, Exception] = {}
        for step, record in ranked:
            path = self._folder / str(step)
            self._check_run(record)
            _check_arrays(path, record, template)
            try:
                state: Any = self._manager.restore(step, args=ocp.args.StandardRestore(template))
                if state_hash(state) != record.content:
                    raise ValueError("its arrays are not those that were saved")
            except Exception as error:  # a broken file can make the library raise anything
                _check_readable(path, error)
                damaged[path] = error
                continue
            if damaged:
                processes.on_process_zero(functools.partial(_rename_all, damaged))
                self._manager.reload()
            return Saved(state, record.metrics)
        if damaged:
            raise _none_readable(self._folder, damaged)
        return None

    def _check_run(self, record: Record) -> None:
        """Raises UserError if a checkpoint belongs to another config or other data."""
        for name, sentence in _MISMATCHES.items():
            if name not in self._run:
                continue
            different = (
                differences(record.run[name], self._run[name])
                if name in record.run
                else [f"{name} is not recorded"]
            )
            if different:
                raise UserError(f"{self._folder} {sentence.format('; '.join(different))}")

    def _delete(self) -> None:
        if processes.is_process_zero():
            shutil.rmtree(self._folder / _DELETED, ignore_errors=True)


def _selection(metrics: Mapping[str, float]) -> float:
    return metrics["selection"]


def _check_arrays(path: Path, record: Record, template: State) -> None:
    """Raises UserError if a checkpoint has other dtypes or shapes; nothing is cast or cut."""
    different = [
        f"{name} is {record.arrays.get(name, 'missing')}, expected {ours.get(name, 'nothing')}"
        for ours in [describe_arrays(template)]
        for name in sorted(record.arrays.keys() | ours.keys())
        if record.arrays.get(name) != ours.get(name)
    ]
    if different:
        raise UserError(
            f"{path} holds other arrays ({different[0]}; {len(different)} differ), and nothing is "
            "cast: use the version and the settings that it was trained with, such as "
            "JAX_ENABLE_X64, or choose another --workdir."
        )


def _set_unrecorded_aside(folder: Path) -> None:
    """Sets aside checkpoints without a valid record, which the manager cannot load.

    Raises:
      UserError: nothing would be left, or the file system refuses.
    """
    names = ocp.path.step.standard_name_format()
    damaged: dict[Path, Exception] = {}
    found = [path for path in sorted(folder.glob("*")) if path.name.isdecimal()]
    for path in found:
        try:
            if path.name != str(int(path.name)):
                raise ValueError("no checkpoint has such a name")
            read_record(path)
            # What the manager reads of every checkpoint when it opens the folder.
            _ = names.find_step(folder.absolute(), int(path.name)).commit_timestamp
        except Exception as error:  # a broken file can make the library raise anything
            _check_readable(path, error)
            damaged[path] = error
    if damaged and len(damaged) == len(found):
        raise _none_readable(folder, damaged)
    _rename_all(damaged)


def _rename_all(damaged: Mapping[Path, Exception]) -> None:
    """Sets damaged checkpoints aside; nothing is deleted."""
    for path, error in damaged.items():
        _rename(path, error)


def _rename(path: Path, error: Exception) -> None:
    names = itertools.chain([""], itertools.count(1))
    aside = next(
        aside
        for name in names
        if not (aside := path.with_name(f"{path.name}.damaged{name}")).exists()
    )
    path.rename(aside)
    LOG.warning(
        "the checkpoint %s is damaged (%s): set aside as %s; using the one before",
        path,
        _line(error),
        aside.name,
    )


def _check_readable(path: Path, error: Exception) -> None:
    """Raises UserError if the file system refused access: then nothing is damaged."""
    if storage_reason(error):
        raise UserError(
            f"{path} cannot be read ({storage_reason(error)}); fix that and run again."
        ) from error


def _none_readable(folder: Path, damaged: Mapping[Path, Exception]) -> UserError:
    path, error = next(iter(damaged.items()))
    return UserError(
        f"{folder}: none of {len(damaged)} checkpoints can be read (step {path.name}: "
        f"{_line(error)!r}); move the folder away to restart this stage."
    )


def _line(error: Exception) -> str:
    """Shortens an error's message to one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turns errors of the file system into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if storage_reason(error) is None and not isinstance(error, OSError):
            raise
        raise cannot_write(folder, error) from error
