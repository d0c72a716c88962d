"""Implicit MAML (Rajeswaran et al. 2019): the derivative of the inner problem's solution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from optax.tree import norm

from dsaml_jax.meta.adapt import PRECOMPUTE_STREAM, MetaParams, squared_distance
from dsaml_jax.meta.estimators.base import EpisodeEstimator
from dsaml_jax.meta.problem import Episode, TaskResult
from dsaml_jax.meta.subset import merge, partition


@dataclasses.dataclass(frozen=True)
class Implicit(EpisodeEstimator):
    """dL_query(φ*)/dθ for φ* = argmin_φ J(φ, θ), J = L_support(φ, θ_frozen) + λ/2 |φ - θ_adapted|².

    Since ∇_φ J(φ*, θ) = 0, with w from (∇² L_support + λ I) w = ∇_φ L_query,
      dL_query/dθ = ∂L_query/∂θ_frozen - ∂/∂θ <∇_φ J(φ*, θ), w>,
    which is λ w for the adapted weights. The inner path is neither stored nor used, so memory does
    not grow with K. The K steps of `inner`, with λ = `inner.proximal`, approximate φ*. Conjugate
    gradients solve for w; they need a positive definite ∇² L_support + λ I, so λ must exceed the
    magnitude of the most negative curvature. `TaskResult.numbers` reports the accuracy of both:
      residual      |(H + λ I) w - v| / |v|
      stationarity  |∇_φ J| / |λ (φ - θ)|

    Attributes:
      solver_steps: maximum number of conjugate gradient steps.
      tolerance: relative residual at which they stop.
    """

    solver_steps: int = 10
    tolerance: float = 1e-6

    @property
    def learns_inner_loss(self) -> bool:
        """Returns True: the solution φ* depends on the parameters of the support loss."""
        return True

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: jax.Array | float
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the meta-gradient.

        Raises:
          ValueError: the inner loop has no proximal term, or learned rates.
        """
        del progress
        problem, inner = episode.problem, episode.inner
        if not inner.proximal > 0 or inner.rates != "fixed":
            raise ValueError(
                f"inner.proximal is {inner.proximal} and inner.rates is {inner.rates!r}; implicit "
                "gradients need a positive proximal strength and fixed rates."
            )
        adapted = episode.adapt(meta_params)
        end, _ = partition(adapted.params, inner.adapt)

        def query_loss(end, params):
            _, frozen = partition(params, inner.adapt)
            return episode.query_loss(merge(end, frozen))

        @jax.named_scope("support_loss")
        def objective(end, params):
            start, frozen = partition(params, inner.adapt)
            batch = episode.task.support
            if problem.precompute is not None:
                precompute_key = jax.random.fold_in(episode.inner_key, PRECOMPUTE_STREAM)
                with jax.named_scope("precompute"):
                    batch = problem.precompute(frozen, batch, precompute_key)
            loss_key = jax.random.fold_in(episode.inner_key, inner.steps)
            value = problem.loss(merge(end, frozen), batch, loss_key)
            return value + inner.proximal / 2 * squared_distance(end, start)

        (value, auxiliary), (v, direct) = jax.value_and_grad(query_loss, (0, 1), has_aux=True)(
            end, meta_params.params
        )
        slope, curvature = jax.linearize(
            lambda end: jax.grad(objective)(end, meta_params.params), end
        )
        w, _ = cg(curvature, v, tol=self.tolerance, maxiter=self.solver_steps)

        def derivative_along_w(params):
            return jax.jvp(lambda end: objective(end, params), (end,), (w,))[1]

        gradient = jax.tree.map(
            jnp.subtract, direct, jax.grad(derivative_along_w)(meta_params.params)
        )
        start, _ = partition(meta_params.params, inner.adapt)
        pull = inner.proximal * norm(jax.tree.map(jnp.subtract, end, start))
        residual = norm(jax.tree.map(jnp.subtract, curvature(w), v))
        numbers = {
            "residual": _ratio(residual, norm(v)),
            "stationarity": _ratio(norm(slope), pull),
        }
        return TaskResult(value, adapted.losses, auxiliary, numbers), MetaParams(gradient, {})


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Returns part / whole, with a denominator that is never 0."""
    return part / jnp.maximum(whole, jnp.finfo(whole.dtype).tiny)
