"""Estimators of the meta-gradient: one call, (problem, inner, learner, task, key, progress) ->
(outcome, gradient), for one task; `jax.vmap` over task and key gives many."""

from dsaml_jax.meta.estimators.unrolled import Unrolled

__all__ = ["Unrolled"]
