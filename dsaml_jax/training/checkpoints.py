"""Checkpoints of one stage: the latest two, to resume from, and the best, to evaluate."""

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
    """A checkpoint as restored.

    Attributes:
      state: of training.
      metrics: of its validation; None if it has not been validated.
    """

    state: TrainState
    metrics: dict[str, float] | None


class Checkpoints:
    """Saves and restores the checkpoints of a stage; writes in the background.

    A checkpoint is a folder named after its step, which appears once it is complete. It holds the
    whole `TrainState`, its validation metrics if there are any, and metadata about the run. Two are
    kept so that one is left if the latest is damaged.

    Args:
      folder: of the stage's checkpoints.
      metadata: about the run, JSON-compatible; its "data" must match when a checkpoint is restored.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any] | None = None):
        self._folder = folder
        self._metadata = dict(metadata or {})
        best = BestN(get_metric_fn=_selection, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(2), best]),
            best_fn=_selection,
            cleanup_tmp_directories=True,  # left by interrupted saves
        )
        with _storage_errors(folder):
            _set_unreadable_metrics_aside(folder)
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: TrainState, metrics: Mapping[str, float] | None = None) -> None:
        """Starts saving a state; `metrics["selection"]` decides whether it is the best.

        Raises:
          UserError: this checkpoint, or the previous one, cannot be written.
        """
        step = int(state.step)
        with _storage_errors(self._folder):
            if step in self._manager.all_steps():  # saved before it was validated
                self._manager.wait_until_finished()
                self._manager.delete(step)
            self._manager.save(
                step,
                args=ocp.args.StandardSave(state),
                metrics=None if metrics is None else dict(metrics),
                custom_metadata=self._metadata,
            )

    def last(self, template: TrainState) -> Saved | None:
        """Restores the latest readable checkpoint; returns None if there is none yet.

        Unreadable ones are set aside with a warning.

        Args:
          template: a state with the expected shapes and types.

        Raises:
          UserError: no checkpoint can be read, or it belongs to other data.
        """
        self.wait()
        return self._first_readable(sorted(self._manager.all_steps(), reverse=True), template)

    def best(self, template: TrainState) -> Saved | None:
        """Restores the best readable checkpoint, the latest among equals; None if there is none."""
        self.wait()  # metrics are not known before they are on disk
        steps = sorted(self._manager.all_steps())
        metrics = {step: self._manager.metrics(step) for step in steps}
        selection = {step: found["selection"] for step, found in metrics.items() if found}
        return self._first_readable(sorted(selection, key=selection.__getitem__)[::-1], template)

    def wait(self) -> None:
        """Waits until everything is on disk; raises UserError if that fails."""
        with _storage_errors(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk and ends the writing threads."""
        with _storage_errors(self._folder):
            self._manager.close()

    def _first_readable(self, steps: Sequence[int], template: TrainState) -> Saved | None:
        damaged: dict[int, Exception] = {}
        state: Any
        for step in steps:
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(template))
            except Exception as error:  # a broken file can make the library raise anything
                if storage_reason(error):
                    raise UserError(
                        f"{self._folder / str(step)} cannot be read ({storage_reason(error)}); "
                        "fix that and run again."
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
                f"{self._folder}: none of {len(damaged)} checkpoints can be read (step {step}: "
                f"{_line(error)!r}); move the folder away to restart this stage."
            )
        return None

    def _check_data(self, step: int) -> None:
        ours: Fingerprint | None = self._metadata.get("data")
        theirs = (self._manager.metadata(step).custom_metadata or {}).get("data")
        different = differences(theirs, ours) if ours and theirs else []
        if different:
            raise UserError(
                f"{self._folder} was trained on other data ({'; '.join(different)}); restore those "
                "data or choose another --workdir."
            )


def _selection(metrics: Mapping[str, float]) -> float:
    return metrics["selection"]


def _set_unreadable_metrics_aside(folder: Path) -> None:
    """Sets aside checkpoints with damaged metrics, which the manager cannot load."""
    for path in folder.glob("*/metrics/metrics"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            if path.parent.parent.name.isdigit():
                _set_aside(path.parent.parent, error)


def _set_aside(path: Path, error: Exception) -> None:
    """Renames a damaged checkpoint; nothing is deleted."""
    if jax.process_index() > 0:
        return
    taken = len(list(path.parent.glob(f"{path.name}.damaged*")))
    aside = path.with_name(f"{path.name}.damaged{taken or ''}")
    path.rename(aside)
    LOG.warning(
        "the checkpoint %s is damaged (%s): set aside as %s; using the one before",
        path,
        _line(error),
        aside.name,
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
    except Exception as error:
        if storage_reason(error) is None and not isinstance(error, OSError):
            raise
        raise cannot_write(folder, error) from error
