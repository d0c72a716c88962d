"""Estimators that differentiate the inner loop itself, through the last n of its K steps.

With θ_K(θ) from `adapt`, dθ_K/dθ = (I - α H_(K-1)) ... (I - α H_(K-n)) for SGD of rate α: n = 0 is
first-order MAML (dθ_K/dθ = I), n = K exact MAML (Finn et al. 2017).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.estimators.base import EpisodeEstimator, gradient, required_progress
from dsaml_jax.meta.inner import MetaParams
from dsaml_jax.meta.problem import Params, TaskResult
from dsaml_jax.meta.schedules import in_unit_interval, multi_step_weights

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

    Raises:
      UserError: `multi_step_until` is not in [0, 1].
    """

    exact_steps: int | None = None
    engine: Engine = ENGINES["remat"]
    multi_step_until: float = 0.0

    def __post_init__(self):
        in_unit_interval("multi_step_until", self.multi_step_until)

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: Float[Array, ""] | float | None
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the gradient of `loss`."""
        derivative, result = gradient(lambda m: self.loss(episode, m, progress), meta_params)
        return result, derivative

    def loss(
        self,
        episode: Episode,
        meta_params: MetaParams,
        progress: Float[Array, ""] | float | None = None,
    ) -> tuple[Float[Array, ""], TaskResult]:
        """Returns the loss, L_query(θ_K(θ)) or its multi-step form, and the result.

        Raises:
          UserError: the multi-step form lacks `progress`.
        """
        steps = episode.inner.steps
        share = required_progress(progress, "multi_step_until") if self.multi_step_until else 1.0
        if not self.multi_step_until or steps < 2:
            adapted = episode.adapt(meta_params, exact_steps=self.exact_steps, engine=self.engine)
            value, auxiliary = episode.query_loss(adapted.params, adapted.state)
            return value, TaskResult(value, adapted.losses, auxiliary, {})
        weights = multi_step_weights(share, steps, self.multi_step_until)

        @jax.checkpoint
        def weighted_query_loss(params: Params, state: Any, k: jax.Array) -> jax.Array:
            def query_loss(params, state):
                value, _ = episode.query_loss(params, state)
                return (weights[k] * value).astype(weights.dtype)

            # The last one is computed below; those whose weight has reached 0 are not computed.
            needed = (k < steps - 1) & (share < self.multi_step_until)
            zero = jnp.zeros((), weights.dtype)
            return jax.lax.cond(needed, query_loss, lambda params, state: zero, params, state)

        adapted = episode.adapt(
            meta_params,
            exact_steps=self.exact_steps,
            engine=self.engine,
            after=weighted_query_loss,
        )
        value, auxiliary = episode.query_loss(adapted.params, adapted.state)
        result = TaskResult(value, adapted.losses, auxiliary, {})
        return weights[-1] * value + adapted.path.sum(), result
