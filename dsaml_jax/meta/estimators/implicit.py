"""Implicit MAML (Rajeswaran et al. 2019): the derivative of the inner problem's solution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg

from dsaml_jax.meta.adapt import (
    PRECOMPUTE_STREAM,
    InnerLoop,
    MetaParams,
    adapt,
    squared_distance,
)
from dsaml_jax.meta.problem import Problem, Task, TaskResult
from dsaml_jax.meta.subset import merge, partition


@dataclasses.dataclass(frozen=True)
class Implicit:
    """dL_query(φ*)/dθ for φ* = argmin_φ J(φ, θ), J = L_support(φ, θ_frozen) + λ/2 |φ - θ_adapted|².

    As ∇_φ J(φ*, θ) = 0, with w from (∇² L_support + λ I) w = ∇_φ L_query,
      dL_query/dθ = ∂L_query/∂θ_frozen - ∂/∂θ <∇_φ J(φ*, θ), w>,
    which is λ w in the adapted weights. It neither stores nor depends on the inner path: memory
    does not grow with K. φ* is what `inner` reaches in its K steps; w is found by conjugate
    gradients, which need ∇² L_support + λ I positive definite, so λ above the most negative
    curvature. `TaskResult.numbers` says how far either is from true:
      residual      |(H + λ I) w - v| / |v|
      stationarity  |∇_φ J| / |λ (φ - θ)|

    Attributes:
      solver_steps: of conjugate gradients, at most.
      tolerance: relative residual at which they stop.
    """

    solver_steps: int = 10
    tolerance: float = 1e-6

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: jax.Array,
        progress: jax.Array | float = 1.0,
    ) -> tuple[TaskResult, MetaParams]:
        """The task's outcome and its meta-gradient; λ is `inner.proximal`."""
        del progress
        if not inner.proximal > 0 or inner.rates != "fixed":
            raise ValueError("implicit gradients need inner.proximal > 0 and fixed rates")
        inner_key, query_key = jax.random.split(key)
        adapted = adapt(
            problem.loss,
            inner,
            meta_params,
            task.support,
            inner_key,
            precompute=problem.precompute,
            exact_steps=0,
        )
        end, _ = partition(adapted.params, inner.adapt)

        def query_loss(end, params):
            _, frozen = partition(params, inner.adapt)
            return problem.query_loss(merge(end, frozen), task.query, query_key)

        def objective(end, params):
            start, frozen = partition(params, inner.adapt)
            batch = task.support
            if problem.precompute is not None:
                precompute_key = jax.random.fold_in(inner_key, PRECOMPUTE_STREAM)
                batch = problem.precompute(frozen, batch, precompute_key)
            value = problem.loss(
                merge(end, frozen), batch, jax.random.fold_in(inner_key, inner.steps)
            )
            return value + inner.proximal / 2 * squared_distance(end, start)

        (value, auxiliary), (v, direct) = jax.value_and_grad(query_loss, (0, 1), has_aux=True)(
            end, meta_params.params
        )
        slope, curvature = jax.linearize(
            lambda end: jax.grad(objective)(end, meta_params.params), end
        )
        w, _ = cg(curvature, v, tol=self.tolerance, maxiter=self.solver_steps)

        def along_w(params):
            return jax.jvp(lambda end: objective(end, params), (end,), (w,))[1]

        gradient = jax.tree.map(jnp.subtract, direct, jax.grad(along_w)(meta_params.params))
        start, _ = partition(meta_params.params, inner.adapt)
        pull = inner.proximal * _norm(jax.tree.map(jnp.subtract, end, start))
        residual = _norm(jax.tree.map(jnp.subtract, curvature(w), v))
        numbers = {
            "residual": _ratio(residual, _norm(v)),
            "stationarity": _ratio(_norm(slope), pull),
        }
        return TaskResult(value, adapted.losses, auxiliary, numbers), MetaParams(gradient, {})


def _norm(tree) -> jax.Array:
    return optax.tree.norm(tree)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return part / jnp.maximum(whole, jnp.finfo(whole.dtype).tiny)
