"""One task of a problem with its inner loop and random keys, as functions of the weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from dsaml_jax.meta.adapt import Adapted, adapt
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Params, Problem, Task
from dsaml_jax.meta.trees import as_arrays

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Episode:
    """One task of a problem with its inner loop and random keys."""

    problem: Problem
    inner: InnerLoop
    task: Task
    inner_key: PRNGKeyArray
    query_key: PRNGKeyArray

    @classmethod
    def create(cls, problem: Problem, inner: InnerLoop, task: Task, key: PRNGKeyArray) -> Episode:
        """Splits `key` into the keys of the inner loop and of the query loss."""
        inner_key, query_key = jax.random.split(key)
        return cls(problem, inner, as_arrays(task, "the task"), inner_key, query_key)

    def adapt(self, meta_params: MetaParams, *, exact_steps: int | None = 0, **options) -> Adapted:
        """Runs `adapt` on the support, by default without second derivatives."""
        return adapt(
            self.problem,
            self.inner,
            meta_params,
            self.task.support,
            self.inner_key,
            exact_steps=exact_steps,
            **options,
        )

    def query_loss(self, params: Params, state: Any) -> tuple[Float[Array, ""], Any]:
        """Returns the query loss at these weights, with this state, and its auxiliary output."""
        with jax.named_scope("query_loss"):
            return self.problem.query_loss_and_auxiliary(
                params, self.task.query, self.query_key, state
            )
