"""One meta-step: draw tasks, adapt to each, and move the shared weights by the mean meta-gradient.

The only place with `vmap` over annotators and `jit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.corpus import Tables
from dsaml_jax.experiment import TaskConfig
from dsaml_jax.inner import InnerConfig
from dsaml_jax.meta import Learner, Task, rates
from dsaml_jax.meta.finite import Finite, finiteness
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.objective import dsaml_problem
from dsaml_jax.tasks import Draw, draw_tasks
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
) -> MetaStep:
    """meta_step(state, tables, key) -> (state, metrics), compiled; the state is donated.

    θ <- outer update(θ, mean over tasks of the estimate of ∇_θ L_query(θ_K(θ))), and so for the
    learned inner rates; `steps` meta-steps are the whole of training, for schedules. Where the loss
    or the gradient is not finite nothing moves but the step. What is random depends on `key`, the
    step and the task's place in the meta-batch only. With
    `inner.steps` = 0 it is a step of ordinary training on the query songs, which is how the
    population model is made.
    """
    one_task = functools.partial(
        inner.build_estimator(), dsaml_problem(model, train=True), inner.loop()
    )

    def all_tasks(learner, task, keys, progress):
        if not tasks.at_once:
            return jax.vmap(one_task, in_axes=(None, 0, 0, None))(learner, task, keys, progress)
        together = tasks.at_once if tasks.at_once > 1 else None
        return jax.lax.map(
            lambda one: one_task(learner, *one, progress), (task, keys), batch_size=together
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def meta_step(state: TrainState, tables: Tables, key: jax.Array):
        task, keys = draw_meta_batch(tasks, state.statistics, tables, key, state.step)
        outcome, gradients = all_tasks(state.learner, task, keys, state.step / max(steps, 1))
        gradient = jax.tree.map(lambda g: g.mean(0), gradients)
        updates, outer = optimizer.update(gradient, state.outer, state.learner)
        moved: Learner = optax.apply_updates(state.learner, updates)
        report = outcome.auxiliary
        metrics = {
            "loss": outcome.query_loss.mean(),
            "score": report.score.mean(),
            "gradient_norm": optax.global_norm(gradient),
            **rates.summary(moved.rates),
            **{name: value.mean() for name, value in outcome.numbers.items()},
        }
        if inner.steps:
            metrics |= {
                "support_loss_first": outcome.losses[:, 0].mean(),
                "support_loss_last": outcome.losses[:, -1].mean(),
            }
        # A step that is not finite moves nothing; the next one draws other tasks.
        fine = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        metrics["skipped"] = state.skipped + ~fine
        statistics = jax.tree.map(lambda x: x.mean(0), report.statistics)
        kept = jax.tree.map(
            functools.partial(jnp.where, fine),
            (*moved, statistics, outer),
            (*state.learner, state.statistics, state.outer),
        )
        after = TrainState(state.step + 1, *kept, metrics["skipped"])
        return after, Metrics(metrics, finiteness(outcome, gradients))

    return meta_step


def drawn_annotators(
    tasks: TaskConfig, tables: Tables, key: jax.Array, step: jax.Array | int
) -> jax.Array:
    """[B], whom the meta-step after `step` others adapts to."""
    draw_key, _ = jax.random.split(jax.random.fold_in(key, step))
    return _draw(tasks, tables, draw_key).annotator


def draw_meta_batch(
    tasks: TaskConfig, statistics: Any, tables: Tables, key: jax.Array, step: jax.Array | int
) -> tuple[Task, jax.Array]:
    """The tasks of a meta-step, and their keys, stacked along the first axis."""
    draw_key, task_key = jax.random.split(jax.random.fold_in(key, step))
    draw = _draw(tasks, tables, draw_key)
    statistics = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (tasks.meta_batch, *x.shape)), statistics
    )
    task = Task(tables.batch(draw.support, statistics), tables.batch(draw.query, statistics))
    keys = jax.vmap(functools.partial(jax.random.fold_in, task_key))(jnp.arange(tasks.meta_batch))
    return task, keys


def _draw(tasks: TaskConfig, tables: Tables, key: jax.Array) -> Draw:
    return draw_tasks(
        key, tables, meta_batch=tasks.meta_batch, support=tasks.support, query=tasks.query
    )
