"""Diagnoses of a run's meta-gradients, during training and of trained weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import jax

from dsaml_jax.config.experiment import Experiment, TaskConfig
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.errors import UserError
from dsaml_jax.meta.diagnostics import Diagnosis, diagnose, scalars
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.model.weights import Weights
from dsaml_jax.training.devices import first_replica
from dsaml_jax.training.state import TrainState
from dsaml_jax.training.step import draw_meta_batch

STUDY_STREAM = 3
"""Random stream of a run's seed, after those of its stages."""

Diagnose = Callable[[Weights, Tables, jax.Array | int], Diagnosis]


def study_key(seed: int) -> jax.Array:
    """Returns a key that draws other tasks than training does."""
    return jax.random.fold_in(jax.random.key(seed), STUDY_STREAM)


def make_diagnosis(
    model: DSAMLConfig, inner: InnerConfig, tasks: TaskConfig, iterations: int, key: jax.Array
) -> Diagnose:
    """Returns diagnosis(weights, tables, step) of the step's meta-batch, compiled once.

    Args:
      model: sizes of the model.
      inner: the inner loop.
      tasks: sizes of the meta-batch.
      iterations: of Lanczos.
      key: draws the tasks, see `study_key`.
    """
    problem = dsaml_problem(model, train=True)
    compiled = jax.jit(
        functools.partial(diagnose, problem, inner.loop(), iterations=iterations),
        compiler_options=quick_compilation(),
    )

    def diagnosis(weights: Weights, tables: Tables, step: jax.Array | int) -> Diagnosis:
        meta_batch = draw_meta_batch(tasks, weights.batch_stats, tables, key, step)
        return compiled(weights.meta_params, *meta_batch)

    return diagnosis


def logged_diagnosis(
    experiment: Experiment, tables: Tables
) -> Callable[[TrainState], dict[str, float]]:
    """Returns diagnose(state) -> values for the log."""
    diagnosis = make_diagnosis(
        experiment.model,
        experiment.inner,
        experiment.tasks,
        experiment.diagnostics.iterations,
        study_key(experiment.seed),
    )

    def logged(state: TrainState) -> dict[str, float]:
        state = first_replica(state)
        return scalars(jax.device_get(diagnosis(state.weights, tables, state.step)))

    return logged


def quick_compilation() -> dict[str, int]:
    """Returns compiler options for a large program that runs only a few times.

    On a CPU, half the optimization: at the demo's size compiling takes one minute instead of six.
    """
    is_set = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    return {} if is_set or jax.default_backend() != "cpu" else {"xla_backend_optimization_level": 1}


def check_study(inner: InnerConfig, tasks: TaskConfig) -> None:
    """Raises UserError unless there are inner steps and several tasks to compare."""
    if inner.steps < 1 or tasks.meta_batch < 2:
        raise UserError(
            f"A study of meta-gradients compares several tasks: inner.steps is {inner.steps}, "
            f"expected at least 1, and tasks.meta_batch is {tasks.meta_batch}, expected at least 2."
        )
