"""Meta-learning problems: losses, tasks, and what an estimator returns for a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from dsaml_jax.meta.adapt import Adapted, InnerLoop, Loss, MetaParams, Params, Precompute, adapt

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

QueryLoss = Callable[[Params, Any, jax.Array], tuple[jax.Array, Any]]


@dataclasses.dataclass(frozen=True)
class Problem:
    """The pure functions of a meta-learning problem.

    Attributes:
      loss: loss(params, support, key) -> scalar, which the inner loop minimizes.
      query_loss: query_loss(params, query, key) -> (scalar, auxiliary output), evaluated at the
        adapted weights.
      precompute: `adapt` calls it once with the frozen weights; None if nothing is precomputed.
    """

    loss: Loss
    query_loss: QueryLoss
    precompute: Precompute | None = None


class Task(NamedTuple):
    """The data of one task; support and query are any pytrees that the losses take as a batch.

    Attributes:
      support: data to adapt to.
      query: data to evaluate the adapted weights on.
    """

    support: Any
    query: Any


class TaskResult(NamedTuple):
    """What an estimator returns for one task besides its meta-gradient.

    Attributes:
      query_loss: query loss at the adapted weights.
      losses: support loss before each inner step, [K].
      auxiliary: auxiliary output of the query loss.
      numbers: diagnostics of the estimator by name, such as the residual of a solver.
    """

    query_loss: Float[Array, ""]
    losses: Float[Array, " steps"]
    auxiliary: Any
    numbers: dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Episode:
    """One task of a problem with its inner loop and random keys, as functions of the weights."""

    problem: Problem
    inner: InnerLoop
    task: Task
    inner_key: PRNGKeyArray
    query_key: PRNGKeyArray

    @classmethod
    def create(cls, problem: Problem, inner: InnerLoop, task: Task, key: PRNGKeyArray) -> Episode:
        """Splits `key` into the keys of the inner loop and of the query loss."""
        inner_key, query_key = jax.random.split(key)
        return cls(problem, inner, task, inner_key, query_key)

    def adapt(self, meta_params: MetaParams, *, exact_steps: int | None = 0, **options) -> Adapted:
        """Runs `adapt` on the support, by default without second derivatives."""
        return adapt(
            self.problem.loss,
            self.inner,
            meta_params,
            self.task.support,
            self.inner_key,
            precompute=self.problem.precompute,
            exact_steps=exact_steps,
            **options,
        )

    def query_loss(self, params: Params) -> tuple[Float[Array, ""], Any]:
        """Returns the query loss at these weights and its auxiliary output."""
        with jax.named_scope("query_loss"):
            return self.problem.query_loss(params, self.task.query, self.query_key)
