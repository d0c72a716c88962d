"""Metrics of a run: one JSON object per line, and TensorBoard events; and its seconds."""

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

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import cannot_write

LOG = logging.getLogger(__name__)

FLUSH_S = 60
"""Seconds between flushes of TensorBoard events."""


class MetricWriter:
    """Writes `metrics.jsonl`, `timings.jsonl` and `tensorboard/` in a workdir; a context manager.

    Seconds have a file of their own, so that `metrics.jsonl` is the same however often the run was
    interrupted.
    Events are written by the caller's thread, not by tensorboardX's: that one dies on a full disk,
    and the next write would then block forever.

    Raises:
      UserError: (from every method) the files cannot be written.
    """

    def __init__(self, workdir: Path):
        self._path = workdir / "metrics.jsonl"
        self._timings = workdir / "timings.jsonl"
        events = workdir / "tensorboard"
        try:
            self._file = self._path.open("ab")
            _end_last_line(self._path)
            events.mkdir(exist_ok=True)
            self._events = EventsWriter(str(events / "events"), f".{os.getpid()}")
            self._flushed = time.monotonic()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Appends {"stage", "step", ...values} and the same numbers as TensorBoard scalars."""
        line = json.dumps({"stage": stage, "step": step, **values}) + "\n"
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise UserError(f"{self._path} was removed while the run was writing there.")
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

    def time(self, stage: str, step: int, seconds: float) -> None:
        """Appends {"stage", "step", "seconds"}: what a stage took until `step` since it started."""
        row = {"stage": stage, "step": step, "seconds": round(seconds, 3)}
        try:
            with self._timings.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise cannot_write(self._timings, error) from error

    def read(self, stage: str) -> list[dict[str, Any]]:
        """Returns the rows of a stage in the order of steps; a repeated step's later values win."""
        return merged_rows(self._path, stage)

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
            self._events.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def merged_rows(path: Path, stage: str) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`: the rows of a stage by step; a repeated step's later values win.

    Lines that cannot be read are counted in a warning.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    merged: dict[int, dict[str, Any]] = {}
    unreadable = []
    for number, line in enumerate(lines, 1):
        row, whole = _parse(line)
        if not whole:
            unreadable.append(number)
        if row is not None and row["stage"] == stage:
            merged.setdefault(row["step"], {}).update(row)
    if unreadable:
        LOG.warning(
            "%s: %d lines are damaged, the first is line %d; the figures lack their values",
            path,
            len(unreadable),
            unreadable[0],
        )
    return [merged[step] for step in sorted(merged)]


def stage_seconds(workdir: Path, stage: str) -> float:
    """Returns how long a run trained a stage, over all its interruptions; 0 if it did not."""
    path = workdir / "timings.jsonl"
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    rows = [row for row, _ in map(_parse, lines) if row is not None and row["stage"] == stage]
    return float(sum(row.get("seconds") or 0.0 for row in rows))


def _parse(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Returns the row that a line ends with, if any, and whether nothing else was on the line.

    A row may follow what an interrupted write or a power cut left on its line.
    """
    text = line.strip(b" \t\r")
    if not text:
        return None, True
    start = text.find(b"{")
    while start >= 0:
        row = _row(text[start:])
        if row is not None:
            return row, start == 0
        start = text.find(b"{", start + 1)
    return None, False


def _row(text: bytes) -> dict[str, Any] | None:
    """Parses a row {"stage", "step", ...numbers}; returns None if the text is not one."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("stage"), str):
        return None
    numbers = {name: value for name, value in row.items() if name != "stage"}
    valid = type(numbers.get("step")) is int and all(
        value is None or type(value) in (int, float) for value in numbers.values()
    )
    return row if valid else None


def _end_last_line(path: Path) -> None:
    """Terminates the last line, or removes it if it is incomplete; its step then runs again."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return
    if _row(content[whole:]) is None:
        os.truncate(path, whole)
    else:
        with path.open("ab") as file:
            file.write(b"\n")
