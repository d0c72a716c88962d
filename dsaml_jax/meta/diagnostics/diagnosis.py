"""Diagnosis of one meta-batch: the effect of second-order terms, curvature, and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.errors import at_least
from dsaml_jax.meta.diagnostics import similarity
from dsaml_jax.meta.diagnostics.noise import Noise, gradient_noise
from dsaml_jax.meta.diagnostics.path import inner_path
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.estimators import Unrolled
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Problem, Task
from dsaml_jax.meta.trees import split_floating

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key


class Diagnosis(NamedTuple):
    """The diagnosis of B tasks and an inner loop of K >= 1 steps.

    Attributes:
      cosine: cosine between the first-order and the exact mean meta-gradient, by module.
      share: |exact - first order| / |exact| of the mean meta-gradient, by module.
      norm: norm of the exact mean meta-gradient, by module.
      noise: signal and spread of the tasks' exact meta-gradients.
      query_loss: query loss at the adapted weights, mean over tasks.
      losses: support loss before each inner step, mean over tasks, [K].
      step_cosine: cosine between the gradient carried back to θ_0 ... θ_K and the one at θ_K (first
        order), mean over tasks, [K + 1].
      step_norm: norm of those gradients relative to the one at θ_K, mean over tasks, [K + 1].
      eigenvalues: largest and smallest eigenvalue of the support loss's Hessian at
        θ_0 ... θ_(K-1), mean over tasks, [K, 2].
    """

    cosine: dict[str, Float[Array, ""]]
    share: dict[str, Float[Array, ""]]
    norm: dict[str, Float[Array, ""]]
    noise: Noise
    query_loss: Float[Array, ""]
    losses: Float[Array, " steps"]
    step_cosine: Float[Array, " steps+1"]
    step_norm: Float[Array, " steps+1"]
    eigenvalues: Float[Array, "steps 2"]


def diagnose(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    tasks: Task,
    keys: Key[Array, " tasks"],
    *,
    iterations: int = 10,
    engine: Engine = ENGINES["remat"],
) -> Diagnosis:
    """Diagnoses a meta-batch; a pure function.

    Args:
      problem: losses.
      inner: inner loop of K >= 1 steps.
      meta_params: meta-parameters to diagnose.
      tasks: B tasks, stacked along the first axis.
      keys: one random key per task.
      iterations: Lanczos iterations at every inner step of every task; tasks run one at a time.
      engine: how exact meta-gradients are computed.

    Raises:
      UserError: K is 0.
    """
    at_least("inner.steps", inner.steps, 1)

    def gradients(exact_steps: int | None) -> Any:
        def one(task, key):
            estimator = Unrolled(exact_steps, engine)
            _, gradient = estimator(problem, inner, meta_params, task, key)
            return split_floating(gradient.params)[0]

        return jax.vmap(one)(tasks, keys)

    exact = gradients(None)
    mean_exact, mean_first = (
        jax.tree.map(lambda g: g.mean(0), stacked) for stacked in (exact, gradients(0))
    )

    def path_statistics(task_and_key):
        path = inner_path(problem, inner, meta_params, *task_and_key, iterations=iterations)
        last = jax.tree.map(lambda g: g[-1], path.gradients)
        compare = jax.vmap(lambda g: (similarity.cosines(g, last), similarity.norms(g)))
        cosine, norm = (by_module[similarity.ALL] for by_module in compare(path.gradients))
        return path.query_loss, path.losses, cosine, norm / norm[-1], path.eigenvalues

    means = jax.tree.map(lambda x: x.mean(0), jax.lax.map(path_statistics, (tasks, keys)))
    return Diagnosis(
        similarity.cosines(mean_first, mean_exact),
        similarity.second_order_share(mean_exact, mean_first),
        similarity.norms(mean_exact),
        gradient_noise(exact),
        *means,
    )


def scalars(diagnosis: Diagnosis) -> dict[str, float]:
    """Returns the finite numbers of a diagnosis by name, for a log."""
    named = {
        f"{field}/{module}": value
        for field in ("cosine", "share", "norm")
        for module, value in getattr(diagnosis, field).items()
    }
    named |= {
        "noise/signal": diagnosis.noise.signal,
        "noise/spread": diagnosis.noise.spread,
        "noise/scale": diagnosis.noise.scale,
        "query_loss": diagnosis.query_loss,
        "step_norm/first": diagnosis.step_norm[0],
    }
    for k in range(len(diagnosis.losses)):
        named[f"inner_loss/{k}"] = diagnosis.losses[k]
        named[f"step_cosine/{k}"] = diagnosis.step_cosine[k]
        named[f"eigenvalue_max/{k}"] = diagnosis.eigenvalues[k, 0]
        named[f"eigenvalue_min/{k}"] = diagnosis.eigenvalues[k, 1]
    return {name: float(value) for name, value in named.items() if jnp.isfinite(value)}
