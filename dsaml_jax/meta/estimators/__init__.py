"""Estimators of the meta-gradient of one task; `jax.vmap` maps them over a meta-batch."""

from dsaml_jax.meta.estimators.annealed import Annealed
from dsaml_jax.meta.estimators.base import EpisodeEstimator, Estimator
from dsaml_jax.meta.estimators.evolution import EvolutionStrategies, Particles
from dsaml_jax.meta.estimators.implicit import Implicit
from dsaml_jax.meta.estimators.reptile import Reptile
from dsaml_jax.meta.estimators.unrolled import Unrolled

__all__ = [
    "Annealed",
    "EpisodeEstimator",
    "Estimator",
    "EvolutionStrategies",
    "Implicit",
    "Particles",
    "Reptile",
    "Unrolled",
]
