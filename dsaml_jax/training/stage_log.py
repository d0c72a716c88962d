"""The log of one stage: metrics on disk, a progress bar, and skipped meta-steps."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

import jax
from tqdm import tqdm

from dsaml_jax.errors import UserError
from dsaml_jax.meta.finite import Finite
from dsaml_jax.training.metric_writer import MetricWriter

LOG = logging.getLogger(__name__)

ExplainSkip = Callable[[int, Finite], str | None]
"""explain_skip(step, finite) -> why the step was skipped, one sentence, or None if unknown."""


class StepMetrics(NamedTuple):
    """Metrics of one meta-step, or of several, stacked along the first axis.

    Attributes:
      scalars: values by name; "loss", "score", "gradient_norm", and "skipped" are among them.
      finite: which tasks' losses and gradients are finite.
    """

    scalars: dict[str, jax.Array]
    finite: Finite


class StageLog:
    """Writes what happens in a stage; a context manager that shows a progress bar on a terminal.

    At its end, the seconds since its start are written too, if there was progress.

    Args:
      name: of the stage.
      writer: of the run's metrics.
      explain_skip: says why a meta-step was skipped.
      skip_at_most: number of skipped meta-steps that the stage tolerates.
    """

    def __init__(
        self, name: str, writer: MetricWriter, explain_skip: ExplainSkip, skip_at_most: int
    ):
        self.name = name
        self._writer = writer
        self._explain_skip = explain_skip
        self._skip_at_most = skip_at_most
        self._first: int | None = None
        self._last = 0
        self._entered = time.monotonic()
        self._bar = tqdm(desc=name, unit="step", disable=not sys.stderr.isatty())

    def __enter__(self) -> StageLog:
        self._entered = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._first is not None and self._last > self._first:
            self._writer.time(self.name, self._last, time.monotonic() - self._entered)

    def progress(self, step: int, steps: int) -> None:
        """Moves the progress bar to `step` of `steps`."""
        self._first = step if self._first is None else self._first
        self._last = step
        self._bar.total = steps
        self._bar.update(step - self._bar.n)

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes values of a step under "kind/name"."""
        self._writer.write(self.name, step, {f"{kind}/{k}": v for k, v in values.items()})

    def training(self, first: int, count: int, metrics: StepMetrics) -> None:
        """Writes the metrics of the `count` meta-steps that follow step `first`.

        Waits for the device. Values that are not finite are left out of the log.

        Raises:
          UserError: more than `skip_at_most` meta-steps were skipped.
        """
        metrics = jax.device_get(metrics)
        for i in range(count):
            one = jax.tree.map(lambda x, i=i: x[i], metrics) if count > 1 else metrics
            step = first + 1 + i
            values = {name: float(value) for name, value in one.scalars.items()}
            self._bar.set_postfix(
                loss=f"{values['loss']:.3f}", score=f"{values['score']:.3f}", refresh=False
            )
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self.scalars("train", step, finite)
            if not {"loss", "gradient_norm"} <= finite.keys():
                self._report_skip(step, one.finite, int(values["skipped"]))

    def _report_skip(self, step: int, finite: Finite, skipped: int) -> None:
        """Logs that a meta-step was skipped; raises UserError if that is one too many."""
        reason = self._explain_skip(step, finite) or f"Step {step}: the meta-gradient overflows."
        if skipped > self._skip_at_most:
            raise UserError(
                f"{self.name}: {reason} Skipped meta-steps: {skipped}, more than "
                f"{self.name}.skip_at_most = {self._skip_at_most}; the checkpoints before are kept."
            )
        LOG.warning("%s: %s The meta-step is skipped (%d so far).", self.name, reason, skipped)
