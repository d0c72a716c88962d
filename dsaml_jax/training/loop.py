"""The training loop of one stage: step, log, validate, keep the best, resume."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from dsaml_jax.errors import Interrupted
from dsaml_jax.runtime.profiling import NOT_PROFILED, Profiler
from dsaml_jax.runtime.signals import defer_signals
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.schedule import Schedule
from dsaml_jax.training.stage_log import StageLog, StepMetrics
from dsaml_jax.training.state import State

LOG = logging.getLogger(__name__)


class StageFunctions(NamedTuple):
    """The functions of a stage that the loop calls.

    Attributes:
      advance: advance(state, first, count) -> (state, metrics) after `count` more meta-steps than
        `first`; donates the state.
      validate: validate(state) -> metrics; "selection", higher is better, chooses the best state.
      diagnose: diagnose(state) -> values for the log.
    """

    advance: Callable[[Any, int, int], tuple[Any, StepMetrics]]
    validate: Callable[[Any], dict[str, float]]
    diagnose: Callable[[Any], dict[str, float]]


class Fitted(NamedTuple):
    """The result of a stage.

    Attributes:
      state: the best one by validation.
      metrics: of its validation.
    """

    state: Any
    metrics: dict[str, float]


def fit(
    functions: StageFunctions,
    schedule: Schedule,
    state: State,
    checkpoints: Checkpoints,
    log: StageLog,
    profiler: Profiler = NOT_PROFILED,
) -> Fitted:
    """Trains from `state`, or from the latest checkpoint if there is one, to `schedule.steps`.

    Validation and diagnosis also run before the first step. Metrics are fetched one call late, so
    that the device never waits for the log. A checkpoint follows every validation and every
    `schedule.checkpoint_every` steps. A signal to stop gets a checkpoint after the current call,
    without the validation or diagnosis that may be due there: they run when the stage resumes. So
    the result does not depend on where, or by what, training was interrupted.

    Raises:
      UserError: too many meta-steps were skipped, or a checkpoint cannot be written.
      Interrupted: by SIGTERM or SIGINT; everything is saved.
    """

    def validate(state: State, step: int) -> None:
        metrics = functions.validate(state)
        log.scalars("validation", step, metrics)
        checkpoints.save(state, metrics)
        if step:
            LOG.info("%s: step %d, validation CCC %.4f", log.name, step, metrics["selection"])

    def diagnose(state: State, step: int) -> None:
        log.scalars("diagnostics", step, functions.diagnose(state))

    def interrupted(signal: str, step: int) -> Interrupted:
        checkpoints.wait()
        return Interrupted(f"{log.name}: stopped by {signal} after step {step} of {schedule.steps}")

    with defer_signals() as received_signal, log, profiler:
        saved = checkpoints.last(state)
        if saved is not None:
            state = saved.state
            LOG.info("%s: resuming at step %d of %d", log.name, int(state.step), schedule.steps)
        step = int(state.step)
        if schedule.diagnoses(step):
            diagnose(state, step)
        if schedule.validates(step) and (saved is None or saved.metrics is None):
            validate(state, step)
        if signal := received_signal():
            raise interrupted(signal, step)
        pending: tuple[int, int, StepMetrics] | None = None
        while step < schedule.steps:
            log.progress(step, schedule.steps)
            count = schedule.next_call(step)
            state, metrics = profiler(
                step, count, functools.partial(functions.advance, state, step, count)
            )
            if pending is not None:
                log.training(*pending)
            pending = step, count, metrics
            step += count
            signal = received_signal()
            if signal or schedule.is_due(step):
                log.training(*pending)
                pending = None
            if signal:
                checkpoints.save(state)
                raise interrupted(signal, step)
            if schedule.diagnoses(step):
                diagnose(state, step)
            if schedule.validates(step):
                validate(state, step)
            elif schedule.saves(step):
                checkpoints.save(state)
        log.progress(step, schedule.steps)
        if signal := received_signal():
            raise interrupted(signal, schedule.steps)
    best = checkpoints.best(state)
    assert best is not None and best.metrics is not None  # the last step is validated
    return Fitted(best.state, best.metrics)
