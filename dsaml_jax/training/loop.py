"""The training loop of one stage: step, log, validate, keep the best; stopped, go on."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from tqdm import tqdm

from dsaml_jax.config.experiment import StageConfig
from dsaml_jax.errors import Interrupted, UserError
from dsaml_jax.meta.finite import Finite
from dsaml_jax.runtime.signals import defer_signals
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.metric_writer import MetricWriter
from dsaml_jax.training.state import TrainState
from dsaml_jax.training.step import Metrics

LOG = logging.getLogger(__name__)

Advance = Callable[[TrainState, int, int], tuple[TrainState, Metrics]]
"""advance(state, first, count) -> (state, metrics) after `count` meta-steps more than `first`; the
metrics are stacked where `count` is above 1."""

Validate = Callable[[TrainState], dict[str, float]]
Diagnose = Callable[[TrainState], dict[str, float]]
Explain = Callable[[int, Finite], str | None]
"""explain(step, what is finite) -> why a meta-step was skipped, one sentence, or None."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Attributes: state: the best one by validation; metrics: its validation; seconds: spent."""

    state: TrainState
    metrics: dict[str, float]
    seconds: float


def fit(
    name: str,
    stage: StageConfig,
    advance: Advance,
    state: TrainState,
    validate: Validate,
    checkpoints: Checkpoints,
    metric_writer: MetricWriter,
    explain: Explain,
    diagnose: Diagnose | None = None,
    diagnose_every: int = 0,
    steps_per_call: int = 1,
) -> Fitted:
    """Takes `stage.steps` meta-steps from `state`, or from the latest checkpoint if there is one.

    Every `stage.validate_every` steps (and before the first, and after the last) `validate` is
    called; its "selection" value, higher is better, chooses the state that is returned. Metrics are
    fetched a step late, so that the device never waits for the log. Where `diagnose_every` is above
    0, `diagnose` is called as often, and before the first step. `steps_per_call` steps are taken in
    a call where nothing is due before the last of them, else one.

    There is a checkpoint after every validation and every `stage.checkpoint_every` steps. A signal
    to stop gets one after the call under way, without the validation or diagnosis that may be due
    there: they are made up for when the stage is gone on with. So whatever stopped it, and where,
    the outcome is the same.

    Raises:
      UserError: more than `stage.skip_at_most` meta-steps were skipped; says why the last one was.
      Interrupted: by SIGTERM or SIGINT; everything is saved.
    """
    started = time.monotonic()

    def validated(state: TrainState) -> dict[str, float]:
        metrics = validate(state)
        metric_writer.write(
            name, int(state.step), {f"validation/{k}": v for k, v in metrics.items()}
        )
        checkpoints.save(state, metrics)
        return metrics

    def diagnosed(state: TrainState) -> None:
        found = diagnose(state) if diagnose else {}
        metric_writer.write(
            name, int(state.step), {f"diagnostics/{k}": v for k, v in found.items()}
        )

    def record(first: int, count: int, metrics: Metrics) -> None:
        for step, each in enumerate(_each(metrics, count), first + 1):
            values = _shown(each.scalars, bar)
            finite = {key: value for key, value in values.items() if math.isfinite(value)}
            metric_writer.write(name, step, finite)
            if not {"train/loss", "train/gradient_norm"} <= finite.keys():
                reason = explain(step, each.finite) or f"Step {step}: the meta-gradient overflows."
                _tell_skipped(name, stage, reason, int(values["train/skipped"]))

    def is_validated(step: int) -> bool:
        return step % stage.validate_every == 0 or step == stage.steps

    def is_diagnosed(step: int) -> bool:
        return diagnose_every > 0 and step % diagnose_every == 0

    def is_saved(step: int) -> bool:
        return step % stage.checkpoint_every == 0

    def in_a_call(step: int) -> int:
        between = range(step + 1, step + steps_per_call)
        due = any(is_validated(s) or is_diagnosed(s) or is_saved(s) for s in between)
        return 1 if due or step + steps_per_call > stage.steps else steps_per_call

    def stop(signal: str, step: int) -> Interrupted:
        checkpoints.wait()
        return Interrupted(f"{name}: stopped by {signal} after step {step} of {stage.steps}")

    with defer_signals() as asked:
        saved = checkpoints.last(state)
        if saved is not None:
            state = saved.state
            LOG.info("%s: going on from step %d of %d", name, int(state.step), stage.steps)
        first = int(state.step)
        if is_diagnosed(first):
            diagnosed(state)
        if is_validated(first) and (saved is None or saved.metrics is None):
            validated(state)
        if signal := asked():
            raise stop(signal, first)
        step, pending = first, None
        with tqdm(
            total=stage.steps,
            initial=first,
            desc=name,
            unit="step",
            disable=not sys.stderr.isatty(),
        ) as bar:
            while step < stage.steps:
                count = in_a_call(step)
                state, metrics = advance(state, step, count)
                if pending is not None:
                    record(*pending)
                pending = step, count, metrics
                step += count
                bar.update(count)
                signal = asked()
                saves = bool(signal) or is_saved(step)
                if saves or is_validated(step) or is_diagnosed(step):
                    record(*pending)
                    pending = None
                if signal:
                    checkpoints.save(state)
                    raise stop(signal, step)
                if is_diagnosed(step):
                    diagnosed(state)
                if is_validated(step):
                    selection = validated(state)["selection"]
                    LOG.info("%s: step %d, validation CCC %.4f", name, step, selection)
                elif saves:
                    checkpoints.save(state)
        if signal := asked():
            raise stop(signal, stage.steps)
    best = checkpoints.best(state)
    return Fitted(best.state, best.metrics, time.monotonic() - started)


def _tell_skipped(name: str, stage: StageConfig, reason: str, count: int) -> None:
    """Logs that a meta-step was skipped; raises UserError where that is one too many."""
    if count > stage.skip_at_most:
        raise UserError(
            f"{name}: {reason} Skipped meta-steps: {count}, more than {name}.skip_at_most = "
            f"{stage.skip_at_most}; the checkpoints before are kept."
        )
    LOG.warning("%s: %s The meta-step is skipped (%d so far).", name, reason, count)


def _each(metrics: Metrics, count: int) -> list[Metrics]:
    """Of each meta-step in a call, on the host."""
    metrics = jax.device_get(metrics)
    if count == 1:
        return [metrics]
    return [jax.tree.map(lambda x, i=i: x[i], metrics) for i in range(count)]


def _shown(scalars: Mapping[str, Any], bar: tqdm) -> dict[str, float]:
    values = {name: float(value) for name, value in scalars.items()}
    bar.set_postfix(loss=f"{values['loss']:.3f}", score=f"{values['score']:.3f}", refresh=False)
    return {f"train/{name}": value for name, value in values.items()}
