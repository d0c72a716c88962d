"""Diagnoses of a run's meta-gradients: during training, and of what was trained."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.tables import Tables
from dsaml_jax.errors import UserError
from dsaml_jax.meta import MetaParams
from dsaml_jax.meta.diagnostics import Diagnosis, diagnose, scalars
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.training.devices import first_replica
from dsaml_jax.training.state import TrainState
from dsaml_jax.training.step import draw_meta_batch

STUDY_STREAM = 3
"""Of a run's seed, beside those of its stages."""


def study_key(experiment: Experiment) -> jax.Array:
    """Tasks that are studied are not those that training draws."""
    return jax.random.fold_in(jax.random.key(experiment.seed), STUDY_STREAM)


def make_diagnosis(
    experiment: Experiment,
) -> Callable[[MetaParams, Any, Tables, jax.Array | int], Diagnosis]:
    """diagnosis(learner, statistics, tables, step) of the step's meta-batch, compiled once."""
    problem, inner = dsaml_problem(experiment.model, train=True), experiment.inner.loop()

    compiled = jax.jit(
        functools.partial(diagnose, problem, inner, iterations=experiment.diagnostics.iterations),
        compiler_options=quick_compilation(),
    )

    def diagnosis(
        meta_params: MetaParams, batch_stats: Any, tables: Tables, step: jax.Array
    ) -> Diagnosis:
        key = study_key(experiment)
        return compiled(
            meta_params, *draw_meta_batch(experiment.tasks, batch_stats, tables, key, step)
        )

    return diagnosis


def logged_diagnosis(
    experiment: Experiment, tables: Tables
) -> Callable[[TrainState], dict[str, float]]:
    """diagnose(state) -> numbers for the log."""
    diagnosis = make_diagnosis(experiment)

    def logged(state: TrainState) -> dict[str, float]:
        state = first_replica(state)
        found = diagnosis(state.meta_params, state.batch_stats, tables, state.step)
        return scalars(jax.device_get(found))

    return logged


def quick_compilation() -> dict[str, int]:
    """Compiler options for a large program that runs a few times.

    On a CPU half the optimization: a minute to compile where there were six, of the demo's size.
    """
    asked = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    return {} if asked or jax.default_backend() != "cpu" else {"xla_backend_optimization_level": 1}


def check_study(experiment: Experiment) -> None:
    """Raises UserError where there is nothing to study."""
    if experiment.inner.steps < 1 or experiment.tasks.meta_batch < 2:
        raise UserError(
            "A study of meta-gradients compares several tasks: inner.steps is "
            f"{experiment.inner.steps}, expected at least 1, and tasks.meta_batch is "
            f"{experiment.tasks.meta_batch}, expected at least 2."
        )
