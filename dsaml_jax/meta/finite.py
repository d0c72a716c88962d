"""Where a meta-gradient stopped being finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.meta.problem import TaskResult
from dsaml_jax.meta.subset import paths


class Finite(NamedTuple):
    """What is finite of B tasks: `losses` [B, K], `query_loss` [B], `gradient`, a tree of [B]."""

    losses: jax.Array
    query_loss: jax.Array
    gradient: Any


def finiteness(result: TaskResult, gradient: Any) -> Finite:
    """Of one task's outcome and gradient; without the axis B, which `vmap` adds."""
    return Finite(
        jnp.isfinite(result.losses),
        jnp.isfinite(result.query_loss),
        jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), gradient),
    )


def nonfinite_message(
    finite: Finite, *, estimator: str, step: int, order: Sequence[str], names: Sequence[str] = ()
) -> str | None:
    """One sentence that names estimator, step, tasks and weight; None where all is finite.

    Tasks are called by `names` [B], if given, and the first of them is explained.

    A value that is not finite spreads backwards: of the weights that it has reached, the one of the
    module that comes last in `order`, the order in which the modules are run, met it first.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(finite.gradient)]
    bad = ~np.stack(leaves)
    if not bad.any():
        return None
    tasks = np.flatnonzero(bad.any(0))
    task = int(tasks[0])
    others = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
    called = f" ({', '.join(names[i] for i in tasks)})" if names else ""
    place = {module: i for i, module in enumerate(order)}

    def reached_at(path: str) -> int:
        return max((place.get(part, -1) for part in path.split("/")), default=-1)

    reached = [path for path, b in zip(paths(finite.gradient), bad[:, task], strict=True) if b]
    where = max(reached, key=reached_at)
    losses = np.flatnonzero(~np.asarray(finite.losses)[task])
    if len(losses):
        cause = f"its support loss is not finite from inner step {losses[0]} on"
        remedy = "lower inner.optimizer.options.learning_rate"
    elif not np.asarray(finite.query_loss)[task]:
        cause = "its support losses are finite, the query loss after adapting is not"
        remedy = "lower inner.optimizer.options.learning_rate"
    else:
        cause = "its losses are finite, so that only a derivative is not"
        remedy = "use safe_adam for an inner Adam, or try inner.estimator=first_order"
    return (
        f"Step {step}: the {estimator} meta-gradient of task {task}{others} of {bad.shape[1]}"
        f"{called} is not finite, first in {where} ({len(reached)} of {len(leaves)} tensors; "
        f"{cause}); {remedy}."
    )
