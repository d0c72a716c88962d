"""Reptile: updates toward the adapted weights (Nichol, Achiam & Schulman 2018)."""

from __future__ import annotations

import dataclasses

import jax

from dsaml_jax.meta.adapt import MetaParams
from dsaml_jax.meta.estimators.base import EpisodeEstimator
from dsaml_jax.meta.problem import Episode, TaskResult


@dataclasses.dataclass(frozen=True)
class Reptile(EpisodeEstimator):
    """The "gradient" θ - θ_K: outer SGD of rate ε gives Reptile's update θ + ε (θ_K - θ).

    It depends on the support only; the query loss is computed for monitoring. Frozen weights and
    learned rates have gradient 0 and thus never change.
    """

    @property
    def learns_inner_loss(self) -> bool:
        """Returns False: frozen weights have gradient 0."""
        return False

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: jax.Array | float
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the "gradient"."""
        del progress
        adapted = episode.adapt(meta_params)
        value, auxiliary = episode.query_loss(adapted.params)
        gradient = jax.tree.map(lambda start, end: start - end, meta_params.params, adapted.params)
        rates = jax.tree.map(jax.numpy.zeros_like, meta_params.rates)
        return TaskResult(value, adapted.losses, auxiliary, {}), MetaParams(gradient, rates)
