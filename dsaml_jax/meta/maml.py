"""Model-agnostic meta-learning (Finn et al. 2017): how good the weights are after adapting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from dsaml_jax.meta.adapt import Loss, Params, adapt


class Task(NamedTuple):
    """What is adapted on and what is tested on; any pytrees that the loss takes as a batch."""

    support: Any
    query: Any


def task_loss(
    loss: Loss,
    query_loss: Callable[[Params, Any, jax.Array], tuple[jax.Array, Any]],
    optimizer: optax.GradientTransformation,
    params: Params,
    task: Task,
    key: jax.Array,
    *,
    steps: int,
    estimator: str = "second_order",
) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    """L_query(θ_K(θ)) of one task, with θ_K from `adapt` on its support.

    `query_loss` returns (scalar, auxiliary output). Returns the query loss, and (the support loss
    before each inner step [K], the auxiliary output). `jax.grad` of it is the task's meta-gradient;
    `jax.vmap` over task and key gives many.
    """
    inner_key, query_key = jax.random.split(key)
    adapted, losses = adapt(
        loss, optimizer, params, task.support, inner_key, steps=steps, estimator=estimator
    )
    value, auxiliary = query_loss(adapted, task.query, query_key)
    return value, (losses, auxiliary)
