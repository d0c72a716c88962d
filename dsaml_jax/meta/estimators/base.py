"""The interface of estimators, and the code that they share."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Protocol

from dsaml_jax.meta.adapt import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Episode, Problem, Task, TaskResult

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


class Estimator(Protocol):
    """A callable that estimates the meta-gradient of one task.

    Attributes:
      learns_inner_loss: whether frozen parameters that enter the support loss but not the query
        loss, such as the noise of its likelihood, have a meta-gradient; otherwise it is 0.
    """

    @property
    def learns_inner_loss(self) -> bool: ...

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: PRNGKeyArray,
        progress: Float[Array, ""] | float = 1.0,
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the task's result and its meta-gradient.

        Args:
          problem: losses.
          inner: inner loop.
          meta_params: meta-parameters to differentiate with respect to.
          task: support and query.
          key: random key of the task.
          progress: progress of meta-training in [0, 1], for schedules.

        Returns:
          The result, and the meta-gradient in the structure of `meta_params`.
        """
        ...


class EpisodeEstimator(abc.ABC):
    """Base class of estimators that are written as functions of an `Episode`."""

    @property
    @abc.abstractmethod
    def learns_inner_loss(self) -> bool:
        """Returns what `Estimator` says of it."""

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: PRNGKeyArray,
        progress: Float[Array, ""] | float = 1.0,
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the task's result and its meta-gradient, as `Estimator` does."""
        return self.estimate(Episode.create(problem, inner, task, key), meta_params, progress)

    @abc.abstractmethod
    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: Float[Array, ""] | float
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result of an episode and its meta-gradient."""
