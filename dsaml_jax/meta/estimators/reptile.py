"""Reptile: toward the adapted weights (Nichol, Achiam & Schulman 2018)."""

from __future__ import annotations

import dataclasses

import jax

from dsaml_jax.meta.adapt import InnerLoop, MetaParams, adapt
from dsaml_jax.meta.problem import Problem, Task, TaskResult


@dataclasses.dataclass(frozen=True)
class Reptile:
    """The "gradient" θ - θ_K, so that outer SGD of rate ε is θ + ε (θ_K - θ), Reptile's update.

    It learns from the support alone; the query loss is computed for the record. Weights that are
    not adapted have gradient 0, and so have learned rates: they would never move.
    """

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: jax.Array,
        progress: jax.Array | float = 1.0,
    ) -> tuple[TaskResult, MetaParams]:
        """The task's outcome and its meta-gradient."""
        del progress
        inner_key, query_key = jax.random.split(key)
        adapted = adapt(
            problem.loss,
            inner,
            meta_params,
            task.support,
            inner_key,
            precompute=problem.precompute,
            exact_steps=0,
        )
        value, auxiliary = problem.query_loss(adapted.params, task.query, query_key)
        gradient = jax.tree.map(lambda start, end: start - end, meta_params.params, adapted.params)
        rates = jax.tree.map(jax.numpy.zeros_like, meta_params.rates)
        return TaskResult(value, adapted.losses, auxiliary, {}), MetaParams(gradient, rates)
