"""One meta-batch under the microscope: what first order leaves out, curvature, noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.meta.adapt import InnerLoop, MetaParams
from dsaml_jax.meta.diagnostics import similarity
from dsaml_jax.meta.diagnostics.noise import Noise, gradient_noise
from dsaml_jax.meta.diagnostics.path import inner_path
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.estimators import Unrolled
from dsaml_jax.meta.problem import Problem, Task


class Diagnosis(NamedTuple):
    """Of B tasks and an inner loop of K >= 1 steps.

    Attributes:
      cosine, share, norm: of the mean meta-gradient by module: cosine between first order and
        exact, |exact - first| / |exact|, |exact|.
      noise: signal and spread of the exact gradients of the tasks.
      query_loss: after adapting, mean over tasks.
      losses: support loss before each inner step, mean over tasks, [K].
      step_cosine, step_norm: of the adapted weights' gradient carried back to θ_0 ... θ_K: cosine
        to the one at θ_K (first order) and norm relative to it, mean over tasks, [K + 1].
      eigenvalues: largest and smallest of the support loss's Hessian at θ_0 ... θ_(K-1), mean over
        tasks, [K, 2].
    """

    cosine: dict[str, jax.Array]
    share: dict[str, jax.Array]
    norm: dict[str, jax.Array]
    noise: Noise
    query_loss: jax.Array
    losses: jax.Array
    step_cosine: jax.Array
    step_norm: jax.Array
    eigenvalues: jax.Array


def diagnose(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    tasks: Task,
    keys: jax.Array,
    *,
    iterations: int = 10,
    engine: Engine = ENGINES["remat"],
) -> Diagnosis:
    """Pure; `tasks` and `keys` are stacked along their first axis, B >= 2.

    `iterations` of Lanczos are done at every inner step of every task, one task at a time.
    """

    def gradients(exact_steps: int | None) -> Any:
        def one(task, key):
            return Unrolled(exact_steps, engine)(problem, inner, meta_params, task, key)[1].params

        return jax.vmap(one)(tasks, keys)

    exact = gradients(None)
    mean_exact, mean_first = (
        jax.tree.map(lambda g: g.mean(0), each) for each in (exact, gradients(0))
    )

    def along(task_and_key):
        path = inner_path(problem, inner, meta_params, *task_and_key, iterations=iterations)
        last = jax.tree.map(lambda g: g[-1], path.gradients)
        compared = jax.vmap(lambda g: (similarity.cosines(g, last), similarity.norms(g)))
        cosine, norm = (each[similarity.ALL] for each in compared(path.gradients))
        return path.query_loss, path.losses, cosine, norm / norm[-1], path.eigenvalues

    paths = jax.tree.map(lambda x: x.mean(0), jax.lax.map(along, (tasks, keys)))
    return Diagnosis(
        similarity.cosines(mean_first, mean_exact),
        similarity.second_order_share(mean_exact, mean_first),
        similarity.norms(mean_exact),
        gradient_noise(exact),
        *paths,
    )


def scalars(diagnosis: Diagnosis) -> dict[str, float]:
    """Finite numbers by name, for a log; those that are not are left out."""
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
