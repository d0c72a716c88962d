"""What is learned: a problem's losses, its tasks, and what an estimator tells of one task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from dsaml_jax.meta.adapt import Loss, Params, Precompute

QueryLoss = Callable[[Params, Any, jax.Array], tuple[jax.Array, Any]]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Pure functions of a problem.

    Attributes:
      loss: loss(params, support, key) -> scalar, which the inner loop minimizes.
      query_loss: query_loss(params, query, key) -> (scalar, auxiliary output), after adapting.
      precompute: what `adapt` calls once with the weights that are frozen, or None.
    """

    loss: Loss
    query_loss: QueryLoss
    precompute: Precompute | None = None


class Task(NamedTuple):
    """What is adapted on and what is tested on; any pytrees that the losses take as a batch."""

    support: Any
    query: Any


class TaskResult(NamedTuple):
    """What one task tells besides its gradient.

    Attributes:
      query_loss: after adapting.
      losses: support loss before each inner step, [K].
      auxiliary: of the query loss.
      numbers: of the estimator, by name, such as the residual of a solver.
    """

    query_loss: jax.Array
    losses: jax.Array
    auxiliary: Any
    numbers: dict[str, jax.Array]
