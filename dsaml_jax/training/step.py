"""One meta-step: draw tasks, adapt to each, and move the shared weights by the mean meta-gradient.

The only place with `jit` and `shard_map`; `vmap` over annotators is in `accumulation`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.data.tasks import Draw, draw_tasks
from dsaml_jax.meta import MetaParams, Task, TaskResult, rates
from dsaml_jax.meta.finite import Finite, finiteness
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.training.accumulation import sum_over_tasks
from dsaml_jax.training.devices import replicated, task_layout, task_mesh
from dsaml_jax.training.state import TrainState


class Metrics(NamedTuple):
    """Of one meta-step: `scalars` by name, and which tasks' losses and gradients are finite."""

    scalars: dict[str, jax.Array]
    finite: Finite


MetaStep = Callable[[TrainState, Tables, jax.Array], tuple[TrainState, Metrics]]


def make_meta_step(
    model: DSAMLConfig,
    tasks: TaskConfig,
    inner: InnerConfig,
    optimizer: optax.GradientTransformation,
    steps: int,
    mesh: Mesh | None = None,
    count: int = 1,
) -> MetaStep:
    """meta_step(state, tables, key) -> (state, metrics), compiled; the state is donated.

    With `count` above 1 it takes so many meta-steps in a call, and the metrics are those of each,
    stacked along the first axis.

    θ <- outer update(θ, mean over tasks of the estimate of ∇_θ L_query(θ_K(θ))), and so for the
    learned inner rates; `steps` meta-steps are the whole of training, for schedules. Where the loss
    or the gradient is not finite nothing moves but the step. What is random depends on `key`, the
    step and the task's place in the meta-batch only. With
    `inner.steps` = 0 it is a step of ordinary training on the query songs, which is how the
    population model is made.

    Written as what EACH device of `mesh` (by default all there are) computes, on arguments that are
    on every device (`devices.replicate` puts them there once; others are copied in every call).
    Each draws all tasks, which are integers, and adapts to its own share; `sum_over_tasks` adds up.
    Gradients inside are the device's own, as `check_vma=False` has it: an all-reduce that `grad`
    put into the inner loop, for weights that devices share, would mix annotators.

    Raises:
      UserError: there are more devices than tasks.
    """
    mesh = task_mesh() if mesh is None else mesh
    layout = task_layout(tasks.meta_batch, tasks.tasks_per_device, mesh)
    estimate = functools.partial(
        inner.build_estimator(), dsaml_problem(model, train=True), inner.loop()
    )

    def meta_step(state: TrainState, tables: Tables, key: jax.Array):
        draw, keys = draw_step(tasks, tables, key, state.step)
        progress = state.step / max(steps, 1)

        def one_task(i):
            # Gathered here, so that a device holds the songs of the tasks it computes, no others.
            one = jax.tree.map(lambda x: x[i], draw)
            task = task_of(one, tables, state.batch_stats)
            result, gradient = estimate(state.meta_params, task, keys[i], progress)
            report = result.auxiliary
            listed = _scalars(result, inner.steps), finiteness(result, gradient)
            return (gradient, report.batch_stats), listed

        like = state.meta_params, state.batch_stats
        sums, (scalars, finite) = sum_over_tasks(one_task, like, tasks.meta_batch, layout)
        gradient, batch_stats = jax.tree.map(
            lambda total, x: (total / tasks.meta_batch).astype(x.dtype), sums, like
        )
        updates, outer = optimizer.update(gradient, state.outer, state.meta_params)
        moved: MetaParams = optax.apply_updates(state.meta_params, updates)
        metrics = {
            **{name: value.mean() for name, value in scalars.items()},
            "gradient_norm": optax.global_norm(gradient),
            **rates.summary(moved.rates),
        }
        # A step that is not finite moves nothing; the next one draws other tasks.
        fine = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        metrics["skipped"] = state.skipped + ~fine
        kept = jax.tree.map(
            functools.partial(jnp.where, fine),
            (*moved, batch_stats, outer),
            (*state.meta_params, state.batch_stats, state.outer),
        )
        after = TrainState(state.step + 1, *kept, metrics["skipped"])
        return after, Metrics(metrics, finite)

    def meta_steps(state: TrainState, tables: Tables, key: jax.Array):
        if count == 1:
            return meta_step(state, tables, key)
        return jax.lax.scan(lambda now, _: meta_step(now, tables, key), state, length=count)

    everywhere = PartitionSpec()
    per_device = jax.shard_map(
        meta_steps, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )
    placed = replicated(mesh)
    return jax.jit(per_device, donate_argnums=0, in_shardings=placed, out_shardings=placed)


def draw_step(
    tasks: TaskConfig, tables: Tables, key: jax.Array, step: jax.Array | int
) -> tuple[Draw, jax.Array]:
    """The tasks of a meta-step as integers, and a key for each."""
    draw_key, task_key = jax.random.split(jax.random.fold_in(key, step))
    draw = draw_tasks(
        draw_key, tables, meta_batch=tasks.meta_batch, support=tasks.support, query=tasks.query
    )
    keys = jax.vmap(functools.partial(jax.random.fold_in, task_key))(jnp.arange(tasks.meta_batch))
    return draw, keys


def task_of(draw: Draw, tables: Tables, batch_stats: Any) -> Task:
    """The clips of one drawn task, or of several with stacked statistics."""
    return Task(tables.batch(draw.support, batch_stats), tables.batch(draw.query, batch_stats))


def drawn_annotators(
    tasks: TaskConfig, tables: Tables, key: jax.Array, step: jax.Array | int
) -> jax.Array:
    """[B], whom the meta-step after `step` others adapts to."""
    draw, _ = draw_step(tasks, tables, key, step)
    return draw.annotator


def draw_meta_batch(
    tasks: TaskConfig, batch_stats: Any, tables: Tables, key: jax.Array, step: jax.Array | int
) -> tuple[Task, jax.Array]:
    """All tasks of a meta-step, and their keys, stacked along the first axis."""
    draw, keys = draw_step(tasks, tables, key, step)
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (tasks.meta_batch, *x.shape)), batch_stats)
    return task_of(draw, tables, every), keys


def _scalars(result: TaskResult, steps: int) -> dict[str, jax.Array]:
    """What is logged of one task."""
    found = {"loss": result.query_loss, "score": result.auxiliary.score, **result.numbers}
    if steps:
        found |= {"support_loss_first": result.losses[0], "support_loss_last": result.losses[-1]}
    return found
