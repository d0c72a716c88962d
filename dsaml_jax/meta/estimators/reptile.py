"""Reptile: updates toward the adapted weights (Nichol, Achiam & Schulman 2018)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.estimators.base import EpisodeEstimator, with_zeros
from dsaml_jax.meta.inner import MetaParams
from dsaml_jax.meta.problem import TaskResult


@dataclasses.dataclass(frozen=True)
class Reptile(EpisodeEstimator):
    """The "gradient" θ - θ_K: outer SGD of rate ε gives Reptile's update θ + ε (θ_K - θ).

    It depends on the support only; the query loss is computed for monitoring. Frozen weights have
    gradient 0 and thus never change.
    """

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: jax.Array | float | None
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the "gradient".

        Raises:
          UserError: inner rates are learned.
        """
        del progress
        if episode.inner.rates != "fixed":
            raise UserError(
                f"inner.rates is {episode.inner.rates!r}, which Reptile has no gradient for; set "
                "inner.rates to 'fixed', or use another estimator."
            )
        adapted = episode.adapt(meta_params)
        value, auxiliary = episode.query_loss(adapted.params, adapted.state)
        start, frozen = episode.inner.partition(meta_params.params)
        end, _ = episode.inner.partition(adapted.params)
        gradient = with_zeros(jax.tree.map(jnp.subtract, start, end), frozen)
        return TaskResult(value, adapted.losses, auxiliary, {}), MetaParams(gradient, {})
