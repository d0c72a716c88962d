"""Checks that meta-gradients are finite, and explains where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.meta.problem import TaskResult
from dsaml_jax.meta.subset import paths

LOWER_RATE = (
    "lower inner.optimizer.options.learning_rate, or raise inner.proximal if inner.direction is "
    "'newton'"
)


class Finite(NamedTuple):
    """Flags that are True where a value of B tasks is finite.

    Attributes:
      losses: support losses, bool [B, K].
      query_loss: query losses, bool [B].
      gradient: meta-gradients, a tree of bool [B].
    """

    losses: jax.Array
    query_loss: jax.Array
    gradient: Any


def finiteness(result: TaskResult, gradient: Any) -> Finite:
    """Returns the flags of one task, without the axis B, which `vmap` adds."""
    return Finite(
        jnp.isfinite(result.losses),
        jnp.isfinite(result.query_loss),
        jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), gradient),
    )


def nonfinite_message(
    finite: Finite, *, estimator: str, step: int, order: Sequence[str], names: Sequence[str] = ()
) -> str | None:
    """Describes in one sentence which tasks and weights have a nonfinite meta-gradient, and why.

    The sentence explains the first such task. A nonfinite value spreads backward through the model,
    so among the affected weights, those of the module that runs last are closest to its origin.

    Args:
      finite: flags of B tasks.
      estimator: name of the estimator.
      step: meta-step.
      order: names of the modules in the order in which they run.
      names: names of the B tasks, if they have any.

    Returns:
      The sentence, or None if all meta-gradients are finite.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(finite.gradient)]
    bad = ~np.stack(leaves)
    if not bad.any():
        return None
    tasks = [int(i) for i in np.flatnonzero(bad.any(0))]
    task = tasks[0]
    others = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
    task_names = f" ({', '.join(names[i] for i in tasks)})" if names else ""
    position = {module: i for i, module in enumerate(order)}

    def module_position(path: str) -> int:
        return max((position.get(part, -1) for part in path.split("/")), default=-1)

    affected = [path for path, b in zip(paths(finite.gradient), bad[:, task], strict=True) if b]
    origin = max(affected, key=module_position)
    bad_steps = np.flatnonzero(~np.asarray(finite.losses)[task])
    if len(bad_steps):
        cause = f"its support loss is not finite from inner step {bad_steps[0]} on"
        remedy = LOWER_RATE
    elif not np.asarray(finite.query_loss)[task]:
        cause = "its support losses are finite, but its query loss after adaptation is not"
        remedy = LOWER_RATE
    else:
        cause = "its losses are finite, so only a derivative is not"
        remedy = (
            "make the inner optimizer safe (meta.safe; safe_adam in a config), or try the "
            "first_order estimator"
        )
    return (
        f"Step {step}: the {estimator} meta-gradient of task {task}{others} of {bad.shape[1]}"
        f"{task_names} is not finite, first in {origin} ({len(affected)} of {len(leaves)} tensors; "
        f"{cause}); {remedy}."
    )
