"""Metrics of a run: one JSON object per line, and TensorBoard events."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from dsaml_jax.runtime.files import cannot_write

LOG = logging.getLogger(__name__)

FLUSH_S = 60
"""Seconds between flushes of TensorBoard events."""


class MetricWriter:
    """Writes `metrics.jsonl` and `tensorboard/` in a workdir; a context manager.

    Events are written by the caller's thread, not by tensorboardX's: that one dies on a full disk,
    and the next write would then block forever.

    Raises:
      UserError: (from every method) the files cannot be written.
    """

    def __init__(self, workdir: Path):
        self._path = workdir / "metrics.jsonl"
        events = workdir / "tensorboard"
        try:
            self._file = self._path.open("ab")
            _cut_torn_line(self._path)
            events.mkdir(exist_ok=True)
            self._events = EventsWriter(str(events / "events"), f".{os.getpid()}")
            self._flushed = time.monotonic()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Appends {"stage", "step", ...values} and the same numbers as TensorBoard scalars."""
        line = json.dumps({"stage": stage, "step": step, **values}) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
            for name, value in values.items():
                summary = scalar(f"{stage}/{name}", value)
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            if time.monotonic() - self._flushed > FLUSH_S:
                self._events.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def read(self, stage: str) -> list[dict[str, Any]]:
        """Returns the rows of a stage in the order of steps; a repeated step's later values win.

        Lines that are damaged are counted in a warning and left out.
        """
        merged: dict[int, dict[str, Any]] = {}
        damaged = 0
        for line in self._path.read_bytes().split(b"\n"):
            row = _row(line)
            if row is None:
                damaged += bool(line.strip())
                continue
            if row["stage"] == stage:
                merged.setdefault(row["step"], {}).update(row)
        if damaged:
            LOG.warning("%s: %d damaged lines are left out", self._path, damaged)
        return [merged[step] for step in sorted(merged)]

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
            self._events.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _row(line: bytes) -> dict[str, Any] | None:
    """Returns the row that a line holds; None if it is blank or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("stage"), str):
        return None
    numbers = (value for name, value in row.items() if name != "stage")
    whole = isinstance(row.get("step"), int) and all(isinstance(n, int | float) for n in numbers)
    return row if whole else None


def _cut_torn_line(path: Path) -> None:
    """Truncates a partially written last line; its step runs again."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
