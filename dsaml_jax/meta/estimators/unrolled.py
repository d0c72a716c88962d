"""Estimators that differentiate the inner loop itself, through the last n of its K steps.

With θ_K(θ) from `adapt`, dθ_K/dθ = (I - α H_(K-1)) ... (I - α H_(K-n)) for SGD of rate α: n = 0 is
first-order MAML (dθ_K/dθ = I), n = K exact MAML (Finn et al. 2017).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from dsaml_jax.meta.adapt import MetaParams, Params
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.estimators.base import EpisodeEstimator
from dsaml_jax.meta.problem import Episode, TaskResult
from dsaml_jax.meta.schedules import multi_step_weights

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Unrolled(EpisodeEstimator):
    """The gradient of the query loss through the inner loop.

    Attributes:
      exact_steps: number of last inner steps that are differentiated exactly; None for all.
      engine: how they are differentiated.
      multi_step_until: if positive, the loss is MAML++'s weighted sum of the query losses after
        every inner step; the weights shift to the last step until this progress of meta-training.
    """

    exact_steps: int | None = None
    engine: Engine = ENGINES["remat"]
    multi_step_until: float = 0.0

    @property
    def learns_inner_loss(self) -> bool:
        """Returns False for first order, to which the inner gradients are constants."""
        return self.exact_steps != 0

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: Float[Array, ""] | float
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the gradient of `loss`."""
        differentiate = jax.grad(self.loss, argnums=1, has_aux=True)
        gradient, result = differentiate(episode, meta_params, progress)
        return result, gradient

    def loss(
        self, episode: Episode, meta_params: MetaParams, progress: Float[Array, ""] | float
    ) -> tuple[Float[Array, ""], TaskResult]:
        """Returns the loss, L_query(θ_K(θ)) or its multi-step form, and the result."""
        steps = episode.inner.steps
        if self.multi_step_until <= 0 or steps < 2:
            adapted = episode.adapt(meta_params, exact_steps=self.exact_steps, engine=self.engine)
            value, auxiliary = episode.query_loss(adapted.params)
            return value, TaskResult(value, adapted.losses, auxiliary, {})
        weights = multi_step_weights(progress, steps, self.multi_step_until)

        @jax.checkpoint
        def weighted_query_loss(params: Params, k: jax.Array) -> jax.Array:
            def query_loss(params):
                value, _ = episode.query_loss(params)
                return (weights[k] * value).astype(weights.dtype)

            # The last one is computed below; those whose weight has reached 0 are not computed.
            needed = (k < steps - 1) & (progress < self.multi_step_until)
            zero = jnp.zeros((), weights.dtype)
            return jax.lax.cond(needed, query_loss, lambda params: zero, params)

        adapted = episode.adapt(
            meta_params,
            exact_steps=self.exact_steps,
            engine=self.engine,
            after=weighted_query_loss,
        )
        value, auxiliary = episode.query_loss(adapted.params)
        result = TaskResult(value, adapted.losses, auxiliary, {})
        return weights[-1] * value + adapted.path.sum(), result
