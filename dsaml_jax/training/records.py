"""Metrics as they come: one JSON object a line, and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class Records:
    """Writes `metrics.jsonl` and `tensorboard/` in a workdir; a context manager."""

    def __init__(self, workdir: Path):
        self._path = workdir / "metrics.jsonl"
        self._file = self._path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"))

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Appends {"stage", "step", ...values} and the same numbers as TensorBoard scalars."""
        self._file.write(json.dumps({"stage": stage, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{stage}/{name}", value, step)

    def read(self, stage: str) -> list[dict[str, Any]]:
        """What has been written of a stage; of a step that was run twice, the later."""
        merged: dict[int, dict[str, Any]] = {}
        for line in self._path.read_text().splitlines():
            row = json.loads(line)
            if row["stage"] == stage:
                merged.setdefault(row["step"], {}).update(row)
        return [merged[step] for step in sorted(merged)]

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()
        self._events.close()
