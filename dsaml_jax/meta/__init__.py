"""Meta-learning with any pure loss: an inner loop and estimators of its meta-gradient."""

from dsaml_jax.meta.adapt import Adapted, adapt
from dsaml_jax.meta.directions import DIRECTIONS
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.estimators import (
    Annealed,
    Estimator,
    EvolutionStrategies,
    Implicit,
    Reptile,
    Unrolled,
)
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.optimizers import safe, safe_adam
from dsaml_jax.meta.problem import Problem, Task, TaskResult
from dsaml_jax.meta.rates import RATES
from dsaml_jax.meta.solvers import SOLVERS
from dsaml_jax.meta.stream import Stream
from dsaml_jax.meta.unlearned import unlearned

__all__ = [
    "DIRECTIONS",
    "ENGINES",
    "RATES",
    "SOLVERS",
    "Adapted",
    "Annealed",
    "Engine",
    "Estimator",
    "EvolutionStrategies",
    "Implicit",
    "InnerLoop",
    "MetaParams",
    "Problem",
    "Reptile",
    "Stream",
    "Task",
    "TaskResult",
    "Unrolled",
    "adapt",
    "safe",
    "safe_adam",
    "unlearned",
]
