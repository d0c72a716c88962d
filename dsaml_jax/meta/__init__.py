"""Meta-learning of any pure loss: the inner loop and what it is differentiated for."""

from dsaml_jax.meta.adapt import ESTIMATORS, adapt
from dsaml_jax.meta.maml import Task, task_loss

__all__ = ["ESTIMATORS", "Task", "adapt", "task_loss"]
