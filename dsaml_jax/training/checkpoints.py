"""Checkpoints of one stage of training: the latest two, to go on from, and the best, to use."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from dsaml_jax.data.fingerprint import Fingerprint
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.differences import differences
from dsaml_jax.runtime.files import cannot_write, storage_reason
from dsaml_jax.training.state import TrainState

LOG = logging.getLogger(__name__)


class Saved(NamedTuple):
    """Attributes: state; metrics: of its validation, None where it has not been validated."""

    state: TrainState
    metrics: dict[str, float] | None


class Checkpoints:
    """One orbax manager, which writes while training goes on.

    A checkpoint is a folder that appears under its step's number once it is complete. It holds the
    whole `TrainState`, the metrics of its validation if there was one, and, in its metadata, what
    run it is of. Two are kept so that one is left should the latest be damaged. The one with the
    best metrics is never older than they are known: state and metrics are one checkpoint.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None):
        """`about`: what run this is, as JSON; its "data" are checked where it is gone on with."""
        self._folder = folder
        self._about = dict(about or {})
        best = BestN(get_metric_fn=_selection, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(2), best]),
            best_fn=_selection,
            cleanup_tmp_directories=True,  # of saves that were cut off
        )
        with _storage_errors_told(folder):
            _set_unreadable_metrics_aside(folder)
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: TrainState, metrics: Mapping[str, float] | None = None) -> None:
        """Saves the state after its step; `metrics["selection"]` decides whether it is the best.

        Raises:
          UserError: this checkpoint, or the one before, cannot be written.
        """
        step = int(state.step)
        with _storage_errors_told(self._folder):
            if step in self._manager.all_steps():  # saved before it was validated
                self._manager.wait_until_finished()
                self._manager.delete(step)
            self._manager.save(
                step,
                args=ocp.args.StandardSave(state),
                metrics=None if metrics is None else dict(metrics),
                custom_metadata=self._about,
            )

    def last(self, like: TrainState) -> Saved | None:
        """The latest checkpoint that can be read, None where there is none yet.

        Those that cannot be read are set aside, with a warning. `like` gives shapes and types.

        Raises:
          UserError: there are some, but none can be read; or it is of other data.
        """
        self.wait()
        return self._first_readable(sorted(self._manager.all_steps(), reverse=True), like)

    def best(self, like: TrainState) -> Saved | None:
        """The best checkpoint, of equals the latest, likewise; None where none is validated."""
        self.wait()  # metrics are not known before they are on disk
        known = {step: self._manager.metrics(step) for step in self._manager.all_steps()}
        validated = [step for step in sorted(known) if known[step] is not None]
        validated.sort(key=lambda step: known[step]["selection"])
        return self._first_readable(validated[::-1], like)

    def wait(self) -> None:
        """Returns once everything is on disk; raises UserError where that fails."""
        with _storage_errors_told(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk, and ends the threads that write."""
        with _storage_errors_told(self._folder):
            self._manager.close()

    def _first_readable(self, steps: Sequence[int], like: TrainState) -> Saved | None:
        damaged: dict[int, Exception] = {}
        for step in steps:
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(like))
            except Exception as error:  # a broken file can make the library raise anything
                if storage_reason(error):
                    raise UserError(
                        f"{self._folder / str(step)} cannot be read ({storage_reason(error)}); "
                        "mend that, and run again."
                    ) from error
                damaged[step] = error
                continue
            self._check_data(step)
            for each, error in damaged.items():
                _set_aside(self._folder / str(each), error)
            if damaged:
                self._manager.reload()
            metrics = self._manager.metrics(step)
            return Saved(state, None if metrics is None else dict(metrics))
        if damaged:
            step, error = next(iter(damaged.items()))
            raise UserError(
                f"{self._folder}: of {len(damaged)} checkpoints none can be read, that of step "
                f"{step} for example because of {_line(error)!r}; move the folder away to begin "
                "this stage again."
            )
        return None

    def _check_data(self, step: int) -> None:
        ours: Fingerprint | None = self._about.get("data")
        theirs = (self._manager.metadata(step).custom_metadata or {}).get("data")
        different = differences(theirs, ours) if ours and theirs else []
        if different:
            raise UserError(
                f"{self._folder} was trained on other data ({'; '.join(different)}); bring those "
                "back, or choose another --workdir."
            )


def _selection(metrics: Mapping[str, float]) -> float:
    return metrics["selection"]


def _set_unreadable_metrics_aside(folder: Path) -> None:
    """The manager reads the metrics of all as it starts, and a broken file would end it."""
    for path in folder.glob("*/metrics/metrics"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            if path.parent.parent.name.isdigit():
                _set_aside(path.parent.parent, error)


def _set_aside(path: Path, error: Exception) -> None:
    """Renames a damaged checkpoint; it is never deleted."""
    if jax.process_index() > 0:
        return
    taken = len(list(path.parent.glob(f"{path.name}.damaged*")))
    aside = path.with_name(f"{path.name}.damaged{taken or ''}")
    path.rename(aside)
    LOG.warning(
        "the checkpoint %s is damaged (%s): set aside as %s, going on with the one before",
        path,
        _line(error),
        aside.name,
    )


def _line(error: Exception) -> str:
    """An error's message in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


@contextlib.contextmanager
def _storage_errors_told(folder: Path) -> Iterator[None]:
    """Turns what a file system refuses into a sentence."""
    try:
        yield
    except Exception as error:
        if storage_reason(error) is None and not isinstance(error, OSError):
            raise
        raise cannot_write(folder, error) from error
