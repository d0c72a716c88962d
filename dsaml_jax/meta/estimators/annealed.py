"""First-order gradients, then exact ones: derivative-order annealing (Antoniou et al. 2019)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.estimators.base import EpisodeEstimator, required_progress
from dsaml_jax.meta.estimators.unrolled import Unrolled
from dsaml_jax.meta.inner import MetaParams
from dsaml_jax.meta.problem import TaskResult
from dsaml_jax.meta.schedules import in_unit_interval


@dataclasses.dataclass(frozen=True)
class Annealed(EpisodeEstimator):
    """`Unrolled` that is first-order at the beginning of meta-training and exact afterwards.

    One program contains both as branches and runs one of them: the switch needs no compilation, and
    a meta-step before it costs as much as a first-order one. `progress` must not be mapped by
    `jax.vmap`, which would compute both branches.

    Attributes:
      anneal_at: progress of meta-training in [0, 1] from which gradients are exact.
      engine: how exact gradients are computed.
      multi_step_until: as in `Unrolled`.

    Raises:
      UserError: a share is not in [0, 1].
    """

    anneal_at: float
    engine: Engine = ENGINES["remat"]
    multi_step_until: float = 0.0

    def __post_init__(self):
        in_unit_interval("anneal_at", self.anneal_at)
        in_unit_interval("multi_step_until", self.multi_step_until)

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: jax.Array | float | None
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the meta-gradient, exact if progress >= anneal_at.

        Raises:
          UserError: `progress` is None.
        """

        def branch(exact_steps: int | None):
            estimator = Unrolled(exact_steps, self.engine, self.multi_step_until)
            return lambda *arguments: estimator.estimate(episode, *arguments)

        exact = jnp.asarray(required_progress(progress, "Annealed")) >= self.anneal_at
        return jax.lax.cond(exact, branch(None), branch(0), meta_params, progress)
