"""Traces of a few meta-steps, for TensorBoard's profiler or Perfetto."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import jax

LOG = logging.getLogger(__name__)

Result = TypeVar("Result")

STEP = "meta_step"
"""Name of each call's annotation in the trace."""


class Profiler:
    """Writes a `jax.profiler` trace of a few calls of a compiled program; a context manager.

    The first call compiles, so the trace starts with the second one. Each call is annotated as a
    step, so that a viewer groups what belongs to it.

    Args:
      folder: where the trace goes.
      steps: how many meta-steps are traced; 0 for none.
    """

    def __init__(self, folder: Path | None = None, steps: int = 0):
        self._folder = folder
        self._wanted = self._steps_left = 0 if folder is None else steps
        self._compiled = False
        self._tracing = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tracing:
            self._stop()
        elif self._steps_left and self._steps_left == self._wanted and kind is None:
            LOG.warning(
                "nothing was left to profile in %s: the first call only compiles, and no second "
                "one followed; start a run in a new --workdir, with enough meta-steps",
                self._folder,
            )

    def __call__(self, step: int, steps: int, function: Callable[[], Result]) -> Result:
        """Returns `function()`, which takes `steps` meta-steps after `step` others."""
        if self._compiled and self._steps_left > 0 and not self._tracing:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        with jax.profiler.StepTraceAnnotation(STEP, step_num=step):
            result = function()
        self._compiled = True
        if self._tracing:
            self._steps_left -= steps
            if self._steps_left <= 0:
                jax.block_until_ready(result)  # what was only dispatched is not in the trace
                self._stop()
        return result

    def _stop(self) -> None:
        self._tracing = False
        jax.profiler.stop_trace()
        LOG.info("a profiler trace is in %s", self._folder)


NOT_PROFILED = Profiler()
"""Annotates steps and traces nothing."""
