"""Metrics of a run: one JSON object per line, and TensorBoard events."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from dsaml_jax.runtime.files import cannot_write

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
        """Returns the rows of a stage in the order of steps; a repeated step's later values win."""
        merged: dict[int, dict[str, Any]] = {}
        for line in self._path.read_text().splitlines():
            row = json.loads(line)
            if row["stage"] == stage:
                merged.setdefault(row["step"], {}).update(row)
        return [merged[step] for step in sorted(merged)]

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
            self._events.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _cut_torn_line(path: Path) -> None:
    """Truncates a partially written last line; its step runs again."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
