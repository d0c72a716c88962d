"""One meta-step: draw tasks, adapt to each, and move the shared weights by the mean meta-gradient.

`jit` and `shard_map` are in `update`; the `vmap` over annotators is in `accumulation`.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.data.tasks import Draw, draw_tasks
from dsaml_jax.meta import Task, TaskResult, rates
from dsaml_jax.meta.finite import finiteness
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.model.weights import Weights
from dsaml_jax.training.accumulation import sum_over_tasks
from dsaml_jax.training.devices import task_layout, task_mesh
from dsaml_jax.training.stage_log import StepMetrics
from dsaml_jax.training.state import TrainState
from dsaml_jax.training.update import compile_step, outer_update


class MetaStep(Protocol):
    """A compiled meta-step (or several); donates the state."""

    def __call__(
        self, state: TrainState, tables: Tables, key: jax.Array
    ) -> tuple[TrainState, StepMetrics]: ...

    def lower(self, state: TrainState, tables: Tables, key: jax.Array) -> jax.stages.Lowered: ...


def make_meta_step(
    model: DSAMLConfig,
    tasks: TaskConfig,
    inner: InnerConfig,
    optimizer: optax.GradientTransformation,
    steps: int,
    mesh: Mesh | None = None,
    count: int = 1,
) -> MetaStep:
    """Compiles meta_step(state, tables, key) -> (state, metrics).

    θ <- outer update(θ, mean over tasks of the estimate of ∇_θ L_query(θ_K(θ))), and the same for
    the learned inner rates. If the loss or the gradient is not finite, only the step counter moves.
    Randomness depends on `key`, the step, and the task's place in the meta-batch, never on devices.
    With `inner.steps` = 0 this is ordinary training on the query songs, which makes the population
    model.

    Each device draws all tasks, which are integers, and adapts to its own share; `sum_over_tasks`
    adds up.

    Args:
      model: sizes of the model.
      tasks: sizes of the meta-batch.
      inner: the inner loop and the estimator of its meta-gradient.
      optimizer: the outer optimizer.
      steps: meta-steps of the whole stage, for what depends on the progress of training.
      mesh: the devices; all of them by default.
      count: meta-steps that one call takes; metrics are stacked if it is above 1.

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
        meta_params, batch_stats = state.weights

        def one_task(i):
            # Gathered here, so that a device holds only the songs of the tasks it computes.
            one = jax.tree.map(lambda x: x[i], draw)
            task = gather_task(one, tables, batch_stats)
            result, gradient = estimate(meta_params, task, keys[i], progress)
            listed = _scalars(result, inner.steps), finiteness(result, gradient)
            return Weights(gradient, result.auxiliary.batch_stats), listed

        sums, (scalars, finite) = sum_over_tasks(one_task, state.weights, tasks.meta_batch, layout)
        gradient, new_stats = jax.tree.map(
            lambda total, x: (total / tasks.meta_batch).astype(x.dtype), sums, state.weights
        )
        metrics = {name: value.mean() for name, value in scalars.items()}
        update = outer_update(
            optimizer, state.weights, state.opt_state, gradient, new_stats, metrics["loss"]
        )
        metrics |= {
            "gradient_norm": update.gradient_norm,
            **rates.summary(update.weights.meta_params.rates),
            "skipped": state.skipped + ~update.is_finite,
        }
        new_state = TrainState(state.step + 1, update.weights, update.opt_state, metrics["skipped"])
        return new_state, StepMetrics(metrics, finite)

    def meta_steps(state: TrainState, tables: Tables, key: jax.Array):
        if count == 1:
            return meta_step(state, tables, key)
        return jax.lax.scan(lambda now, _: meta_step(now, tables, key), state, length=count)

    return compile_step(meta_steps, mesh)


def draw_step(
    tasks: TaskConfig, tables: Tables, key: jax.Array, step: jax.Array | int
) -> tuple[Draw, jax.Array]:
    """Draws the tasks of a meta-step, as integers, and a key for each."""
    draw_key, task_key = jax.random.split(jax.random.fold_in(key, step))
    draw = draw_tasks(
        draw_key, tables, meta_batch=tasks.meta_batch, support=tasks.support, query=tasks.query
    )
    keys = jax.vmap(functools.partial(jax.random.fold_in, task_key))(jnp.arange(tasks.meta_batch))
    return draw, keys


def gather_task(draw: Draw, tables: Tables, batch_stats: Any) -> Task:
    """Gathers the clips of one drawn task, or of several with stacked running statistics."""
    return Task(tables.batch(draw.support, batch_stats), tables.batch(draw.query, batch_stats))


def drawn_annotators(
    tasks: TaskConfig, tables: Tables, key: jax.Array, step: jax.Array | int
) -> jax.Array:
    """Returns the annotators [B] that the meta-step after `step` others adapts to."""
    draw, _ = draw_step(tasks, tables, key, step)
    return draw.annotator


def songs_of_step(
    tasks: TaskConfig, tables: Tables, key: jax.Array, step: jax.Array | int
) -> jax.Array:
    """Returns the songs of all tasks of the meta-step after `step` others, with repetitions."""
    draw, _ = draw_step(tasks, tables, key, step)
    ratings = jnp.concatenate([draw.support.ravel(), draw.query.ravel()])
    return tables.song_of[ratings]


def draw_meta_batch(
    tasks: TaskConfig, batch_stats: Any, tables: Tables, key: jax.Array, step: jax.Array | int
) -> tuple[Task, jax.Array]:
    """Draws and gathers all tasks of a meta-step, and their keys, stacked along the first axis."""
    draw, keys = draw_step(tasks, tables, key, step)
    stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (tasks.meta_batch, *x.shape)), batch_stats)
    return gather_task(draw, tables, stacked), keys


def _scalars(result: TaskResult, steps: int) -> dict[str, jax.Array]:
    """Returns what is logged of one task."""
    scalars = {"loss": result.query_loss, "score": result.auxiliary.score, **result.numbers}
    if steps:
        scalars |= {
            "support_loss_first": result.losses[0],
            "support_loss_last": result.losses[-1],
        }
    return scalars
