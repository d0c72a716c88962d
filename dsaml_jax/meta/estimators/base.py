"""The interface of estimators, and the code that they share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from dsaml_jax.errors import UserError
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Problem, Task, TaskResult
from dsaml_jax.meta.trees import as_arrays, leaf_path, merge, split_floating

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


class Estimator(Protocol):
    """A callable that estimates the meta-gradient of one task."""

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: PRNGKeyArray,
        progress: Float[Array, ""] | float | None = None,
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the task's result and its meta-gradient.

        Args:
          problem: losses.
          inner: inner loop.
          meta_params: meta-parameters to differentiate with respect to.
          task: support and query.
          key: random key of the task.
          progress: progress of meta-training in [0, 1], for schedules; None where there are none.

        Returns:
          The result, and the meta-gradient in the structure of `meta_params`; that of integers and
          booleans is 0.

        Raises:
          UserError: an argument does not fit the others, or the estimator.
        """
        ...


class EpisodeEstimator(abc.ABC):
    """Base class of estimators that are written as functions of an `Episode`."""

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: PRNGKeyArray,
        progress: Float[Array, ""] | float | None = None,
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the task's result and its meta-gradient, as `Estimator` does."""
        episode = Episode.create(problem, inner, task, key)
        return self.estimate(episode, meta_arrays(meta_params), check_progress(progress))

    @abc.abstractmethod
    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: Float[Array, ""] | float | None
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result of an episode and its meta-gradient."""


def gradient(function: Callable[[Any], tuple[jax.Array, Any]], params: Any) -> tuple[Any, Any]:
    """Returns (gradient, auxiliary output) of a function of a tree; 0 for integers and booleans.

    Raises:
      UserError: the function cannot be differentiated in reverse mode.
    """
    smooth, other = split_floating(params)
    try:
        derivative, auxiliary = jax.grad(lambda s: function(merge(s, other)), has_aux=True)(smooth)
    except ValueError as error:
        if "Reverse-mode differentiation does not work" not in str(error):
            raise
        raise UserError(
            "the inner loop contains a lax.while_loop, such as the line search of optax.lbfgs, "
            "which reverse mode cannot differentiate; use lbfgs(linesearch=None), or an estimator "
            "that does not differentiate the loop: Reptile, Implicit or EvolutionStrategies."
        ) from error
    return with_zeros(derivative, other), auxiliary


def with_zeros(gradient: Any, other: Any) -> Any:
    """Returns a gradient of part of a tree with 0 for the other part."""
    return merge(gradient, jax.tree.map(jnp.zeros_like, other))


def meta_arrays(meta_params: MetaParams) -> MetaParams:
    """Returns the meta-parameters as arrays; raises UserError if there is a random key in them."""
    meta_params = as_arrays(meta_params, "the meta-parameters")
    for path, leaf in jax.tree.leaves_with_path(meta_params):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"the meta-parameter {leaf_path(path)} is a random key, which has no gradient; put "
                "it into the support or the query, or use the key that the losses get."
            )
    return meta_params


def check_progress(progress: Any) -> Any:
    """Raises UserError unless a progress that is known while tracing is in [0, 1]."""
    if progress is None or isinstance(progress, Tracer):
        return progress
    if not 0 <= float(progress) <= 1:
        raise UserError(
            f"progress is {float(progress)}; expected the share of meta-training that is done, "
            "from 0 to 1: the meta-step divided by their number."
        )
    return progress


def required_progress(
    progress: Float[Array, ""] | float | None, what: str
) -> Float[Array, ""] | float:
    """Returns the progress; raises UserError if it was not given."""
    if progress is None:
        raise UserError(
            f"{what} depends on the progress of meta-training; give the estimator `progress`, the "
            "meta-step divided by their number."
        )
    return progress
