"""Reptile: towards the adapted weights (Nichol, Achiam & Schulman 2018)."""

from __future__ import annotations

import dataclasses

import jax

from dsaml_jax.meta.adapt import InnerLoop, Learner, adapt
from dsaml_jax.meta.problem import Outcome, Problem, Task


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
        learner: Learner,
        task: Task,
        key: jax.Array,
        progress: jax.Array | float = 1.0,
    ) -> tuple[Outcome, Learner]:
        """The task's outcome and its meta-gradient."""
        del progress
        inner_key, query_key = jax.random.split(key)
        adapted = adapt(
            problem.loss,
            inner,
            learner,
            task.support,
            inner_key,
            prepare=problem.prepare,
            exact_steps=0,
        )
        value, auxiliary = problem.query_loss(adapted.params, task.query, query_key)
        gradient = jax.tree.map(lambda start, end: start - end, learner.params, adapted.params)
        rates = jax.tree.map(jax.numpy.zeros_like, learner.rates)
        return Outcome(value, adapted.losses, auxiliary, {}), Learner(gradient, rates)
