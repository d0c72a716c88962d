"""Implicit MAML (Rajeswaran et al. 2019): the derivative of the inner problem's solution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from optax.tree import norm

from dsaml_jax.errors import UserError, at_least, one_of
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.estimators.base import EpisodeEstimator, gradient
from dsaml_jax.meta.inner import MetaParams
from dsaml_jax.meta.problem import Params, TaskResult
from dsaml_jax.meta.solvers import SOLVERS, solve
from dsaml_jax.meta.steps import InnerParts, check_symmetry, inner_parts
from dsaml_jax.meta.stream import has_streams
from dsaml_jax.meta.trees import merge


@dataclasses.dataclass(frozen=True)
class Implicit(EpisodeEstimator):
    """dL_query(φ*)/dθ for φ* = argmin_φ J(φ, θ), J = L_support(φ, θ_frozen) + λ/2 |φ - θ_adapted|².

    Since ∇_φ J(φ*, θ) = 0, with w from (∇² L_support + λ I) w = ∇_φ L_query,
      dL_query/dθ = ∂L_query/∂θ_frozen - ∂/∂θ <∇_φ J(φ*, θ), w>,
    which is λ w for the adapted weights. The inner path is neither stored nor used, so memory does
    not grow with K. The K steps of `inner`, with λ = `inner.proximal`, approximate φ*. With λ = 0
    the start has no gradient, since the solution does not depend on it; frozen weights have one.
    `TaskResult.numbers` reports how far the formula holds:
      residual      |(H + λ I) w - v| / |v|
      stationarity  |∇_φ J| / |λ (φ - θ)|; with λ = 0, |∇_φ J| / |∇_φ J at the start|
      curvature     smallest curvature x·(H + λ I) x / x·x that the solver met. If it is negative, φ
                    is no minimum and the gradient means nothing: raise λ.

    Attributes:
      solver_steps: maximum number of steps of the solver.
      tolerance: relative residual at which conjugate gradients stop.
      solver: how w is solved for, one of `solvers.SOLVERS`.
      step_size: step of the Neumann series, below 2 / the largest eigenvalue of H + λ I.

    Raises:
      UserError: a value is out of range.
    """

    solver_steps: int = 10
    tolerance: float = 1e-6
    solver: str = "cg"
    step_size: float | None = None

    def __post_init__(self):
        at_least("solver_steps", self.solver_steps, 1)
        at_least("tolerance", self.tolerance, 0)
        one_of("solver", self.solver, SOLVERS)
        if (self.solver == "neumann") != (self.step_size is not None):
            raise UserError(
                f"step_size is {self.step_size} and solver is {self.solver!r}; expected a positive "
                "step_size for 'neumann', and none for the others."
            )
        if self.step_size is not None and not self.step_size > 0:
            raise UserError(f"step_size is {self.step_size}; expected a positive number.")

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: jax.Array | float | None
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result and the meta-gradient.

        Raises:
          UserError: the inner problem has no solution that the steps approach: rates are learned,
            or the support is a stream or has a state; or the loss has custom derivatives.
        """
        del progress
        inner = episode.inner
        _check(episode)
        parts = _parts(episode, meta_params.params)
        check_symmetry(parts, episode.problem, episode.inner_key, "the implicit estimator")
        adapted = episode.adapt(meta_params)
        end, _ = inner.partition(adapted.params)
        loss_key = jax.random.fold_in(episode.inner_key, inner.steps)
        inputs = parts.inputs._replace(batches=[])

        def query_loss(end_and_params):
            end, params = end_and_params
            _, frozen = inner.partition(params)
            value, auxiliary = episode.query_loss(merge(end, frozen), None)
            return value, (value, auxiliary)

        def objective(end, params):
            parts = _parts(episode, params)
            return parts.loss(end, parts.rest(parts.start, inputs), loss_key)[0]

        def slope(end):
            return jax.grad(objective)(end, meta_params.params)

        (v, direct), (value, auxiliary) = gradient(query_loss, (end, meta_params.params))
        at_end, product = jax.linearize(slope, end)
        w, curvature = solve(
            self.solver,
            product,
            v,
            steps=self.solver_steps,
            tolerance=self.tolerance,
            step_size=self.step_size or 0.0,
        )

        def derivative_along_w(params):
            return jax.jvp(lambda end: objective(end, params), (end,), (w,))[1], None

        through_end, _ = gradient(derivative_along_w, meta_params.params)
        start = parts.start.adapted
        moved = jax.tree.map(jnp.subtract, end, start)
        scale = inner.proximal * norm(moved) if inner.proximal else norm(slope(start))
        numbers = {
            "residual": _ratio(norm(jax.tree.map(jnp.subtract, product(w), v)), norm(v)),
            "stationarity": _ratio(norm(at_end), scale),
            "curvature": curvature,
        }
        result = TaskResult(value, adapted.losses, auxiliary, numbers)
        return result, MetaParams(jax.tree.map(jnp.subtract, direct, through_end), {})


def _parts(episode: Episode, params: Params) -> InnerParts:
    """Returns the components of the inner loop at these meta-parameters."""
    return inner_parts(
        episode.problem,
        episode.inner,
        MetaParams(params, {}),
        episode.task.support,
        episode.inner_key,
    )


def _check(episode: Episode) -> None:
    """Raises UserError unless the inner problem is that of one objective."""
    reasons = {
        f"inner.rates is {episode.inner.rates!r}": episode.inner.rates != "fixed",
        "the support is a Stream": has_streams(episode.task.support),
        "Problem.init_state is given": episode.problem.init_state is not None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(
                f"{reason}, but implicit gradients are those of the minimizer of one objective, "
                "which depends on none of them; use Unrolled."
            )


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Returns part / whole, with a denominator that is never 0."""
    return part / jnp.maximum(whole, jnp.finfo(whole.dtype).tiny)
