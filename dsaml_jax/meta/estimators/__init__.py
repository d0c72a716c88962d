"""Estimators of the meta-gradient: each is called with (problem, inner, learner, task, key,
progress) and gives (outcome, gradient) of one task; `jax.vmap` over task and key gives many."""

from collections.abc import Callable

from dsaml_jax.meta.adapt import MetaParams
from dsaml_jax.meta.estimators.annealed import Annealed
from dsaml_jax.meta.estimators.implicit import Implicit
from dsaml_jax.meta.estimators.reptile import Reptile
from dsaml_jax.meta.estimators.unrolled import Unrolled
from dsaml_jax.meta.problem import TaskResult

Estimator = Callable[..., tuple[TaskResult, MetaParams]]

__all__ = ["Annealed", "Estimator", "Implicit", "Reptile", "Unrolled"]
