"""Estimators that differentiate the inner loop itself, in its last n of K steps.

With θ_K(θ) from `adapt`, dθ_K/dθ = (I - α H_(K-1)) ... (I - α H_(K-n)) for SGD of rate α: n = 0 is
first-order MAML (dθ_K/dθ = I), n = K exact MAML (Finn et al. 2017).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dsaml_jax.meta.adapt import InnerLoop, MetaParams, adapt
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.problem import Problem, Task, TaskResult
from dsaml_jax.meta.schedules import multi_step_weights


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """The gradient of the query loss through the inner loop.

    Attributes:
      exact_steps: how many of the last inner steps are differentiated exactly; None for all.
      engine: how they are.
      multi_step_until: where above 0, the loss is MAML++'s weighted sum of the query losses after every
        inner step, which has become the last one alone at this share of meta-training.
    """

    exact_steps: int | None = None
    engine: Engine = ENGINES["remat"]
    multi_step_until: float = 0.0

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: jax.Array,
        progress: jax.Array | float = 1.0,
    ) -> tuple[TaskResult, MetaParams]:
        """The task's outcome and its meta-gradient; `progress` in [0, 1] is that of training."""
        differentiate = jax.grad(self.loss, argnums=2, has_aux=True)
        gradient, result = differentiate(problem, inner, meta_params, task, key, progress)
        return result, gradient

    def loss(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: jax.Array,
        progress: jax.Array | float = 1.0,
    ) -> tuple[jax.Array, TaskResult]:
        """What is differentiated, L_query(θ_K(θ)) or the multi-step loss, and the outcome."""
        inner_key, query_key = jax.random.split(key)
        multi_step_until = self.multi_step_until > 0 and inner.steps > 1
        after = None
        if multi_step_until:
            weights = multi_step_weights(progress, inner.steps, self.multi_step_until)

            @jax.checkpoint
            def after(params, k):
                def query_loss(params):
                    value, _ = problem.query_loss(params, task.query, query_key)
                    return (weights[k] * value).astype(weights.dtype)

                # The last is computed below, and what has no weight any more is not computed.
                wanted = (k < inner.steps - 1) & (progress < self.multi_step_until)
                nothing = jnp.zeros((), weights.dtype)
                return jax.lax.cond(wanted, query_loss, lambda params: nothing, params)

        adapted = adapt(
            problem.loss,
            inner,
            meta_params,
            task.support,
            inner_key,
            precompute=problem.precompute,
            exact_steps=self.exact_steps,
            engine=self.engine,
            after=after,
        )
        value, auxiliary = problem.query_loss(adapted.params, task.query, query_key)
        result = TaskResult(value, adapted.losses, auxiliary, {})
        if multi_step_until:
            value = weights[-1] * value + adapted.path.sum()
        return value, result
