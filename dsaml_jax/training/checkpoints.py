"""Checkpoints of one stage of training: the latest, to go on from, and the best, to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from dsaml_jax.training.state import TrainState


class Checkpoints:
    """Two orbax managers under one folder: `last` (every validation) and `best` (by a metric)."""

    def __init__(self, folder: Path):
        self._last = _manager(folder / "last", ocp.CheckpointManagerOptions(max_to_keep=1))
        self._best = _manager(
            folder / "best",
            ocp.CheckpointManagerOptions(
                max_to_keep=1, best_fn=lambda metrics: metrics["selection"], best_mode="max"
            ),
        )

    def save(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Saves the state after its step; `metrics["selection"]` decides whether it is the best."""
        step = int(state.step)
        self._best.save(step, args=ocp.args.StandardSave(state), metrics=metrics)
        self._last.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def last(self, like: TrainState) -> TrainState | None:
        """The latest state, or None where there is none yet; `like` gives shapes and types."""
        return _restore(self._last, self._last.latest_step(), like)

    def best(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The best state and its metrics, or None."""
        step = self._best.best_step()
        state = _restore(self._best, step, like)
        return None if state is None else (state, dict(self._best.metrics(step)))

    def close(self) -> None:
        """Waits until everything is on disk."""
        for manager in (self._last, self._best):
            manager.wait_until_finished()
            manager.close()


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(folder.absolute(), options=options)


def _restore(manager, step: int | None, like: TrainState) -> TrainState | None:
    if step is None:
        return None
    return manager.restore(step, args=ocp.args.StandardRestore(like))
