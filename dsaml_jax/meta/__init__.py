"""Meta-learning with any pure loss: an inner loop and estimators of its meta-gradient."""

from dsaml_jax.meta.adapt import Adapted, InnerLoop, MetaParams, adapt
from dsaml_jax.meta.directions import DIRECTIONS
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.estimators import Annealed, Estimator, Implicit, Reptile, Unrolled
from dsaml_jax.meta.optimizers import safe_adam
from dsaml_jax.meta.problem import Problem, Task, TaskResult
from dsaml_jax.meta.rates import RATES

__all__ = [
    "DIRECTIONS",
    "ENGINES",
    "RATES",
    "Adapted",
    "Annealed",
    "Engine",
    "Estimator",
    "Implicit",
    "InnerLoop",
    "MetaParams",
    "Problem",
    "Reptile",
    "Task",
    "TaskResult",
    "Unrolled",
    "adapt",
    "safe_adam",
]
