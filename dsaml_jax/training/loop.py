"""The training loop of one stage: step, log, validate, keep the best."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
from collections.abc import Callable

import jax
from tqdm import tqdm

from dsaml_jax.corpus import Tables
from dsaml_jax.errors import UserError
from dsaml_jax.experiment import StageConfig
from dsaml_jax.meta.finite import complaint
from dsaml_jax.model import MODULES
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.records import Records
from dsaml_jax.training.state import TrainState
from dsaml_jax.training.step import MetaStep, Metrics

LOG = logging.getLogger(__name__)

Validate = Callable[[TrainState], dict[str, float]]
Diagnose = Callable[[TrainState], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Attributes: state: the best one by validation; metrics: its validation; seconds: spent."""

    state: TrainState
    metrics: dict[str, float]
    seconds: float


def fit(
    name: str,
    stage: StageConfig,
    meta_step: MetaStep,
    state: TrainState,
    tables: Tables,
    key: jax.Array,
    validate: Validate,
    checkpoints: Checkpoints,
    records: Records,
    estimator: str,
    diagnose: Diagnose | None = None,
    diagnose_every: int = 0,
) -> Fitted:
    """Takes `stage.steps` meta-steps from `state`, or from the latest checkpoint if there is one.

    Every `stage.validate_every` steps (and before the first, and after the last) `validate` is
    called; its "selection" value, higher is better, chooses the state that is returned. Metrics are
    fetched a step late, so that the device never waits for the log. Where `diagnose_every` is above
    0, `diagnose` is called as often, and before the first step.

    Raises:
      UserError: a meta-gradient is not finite; names `estimator`, step, task and weight.
    """
    started = time.monotonic()
    resumed = checkpoints.last(state)
    if resumed is not None:
        state = resumed
        LOG.info("%s: going on from step %d of %d", name, int(state.step), stage.steps)

    def validated(state: TrainState) -> dict[str, float]:
        metrics = validate(state)
        records.write(name, int(state.step), {f"validation/{k}": v for k, v in metrics.items()})
        checkpoints.save(state, metrics)
        return metrics

    def record(step: int, metrics: Metrics) -> None:
        values = _fetch(metrics.scalars, bar)
        if not math.isfinite(values["train/gradient_norm"]):
            found = complaint(metrics.finite, estimator=estimator, step=step, order=MODULES)
            raise UserError(f"{name}: {found or f'Step {step}: the gradient norm overflows.'}")
        records.write(name, step, values)

    def diagnosed(state: TrainState) -> None:
        found = diagnose(state) if diagnose else {}
        records.write(name, int(state.step), {f"diagnostics/{k}": v for k, v in found.items()})

    first = int(state.step)
    if resumed is None:
        validated(state)
        if diagnose_every:
            diagnosed(state)
    pending = None
    with tqdm(
        total=stage.steps, initial=first, desc=name, unit="step", disable=not sys.stderr.isatty()
    ) as bar:
        for step in range(first + 1, stage.steps + 1):
            state, metrics = meta_step(state, tables, key)
            if pending is not None:
                record(*pending)
            pending = step, metrics
            bar.update()
            if step % stage.validate_every == 0 or step == stage.steps:
                record(step, metrics)
                pending = None
                selection = validated(state)["selection"]
                LOG.info("%s: step %d, validation CCC %.4f", name, step, selection)
            if diagnose_every and step % diagnose_every == 0:
                diagnosed(state)
    best, metrics = checkpoints.best(state)
    return Fitted(best, metrics, time.monotonic() - started)


def _fetch(metrics: dict[str, jax.Array], bar: tqdm) -> dict[str, float]:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    bar.set_postfix(loss=f"{values['loss']:.3f}", score=f"{values['score']:.3f}", refresh=False)
    return {f"train/{name}": value for name, value in values.items()}
