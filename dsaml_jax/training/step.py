"""One meta-step: draw tasks, adapt to each, and move the shared weights by the mean meta-gradient.

The only place with `vmap` over annotators, `value_and_grad` of the outer loss and `jit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.corpus import Tables
from dsaml_jax.experiment import InnerConfig, TaskConfig
from dsaml_jax.meta import Task, task_loss
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.objective import dsaml_loss
from dsaml_jax.tasks import draw_tasks
from dsaml_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
MetaStep = Callable[[TrainState, Tables, jax.Array], tuple[TrainState, Metrics]]


def make_meta_step(
    model: DSAMLConfig,
    tasks: TaskConfig,
    inner: InnerConfig,
    optimizer: optax.GradientTransformation,
) -> MetaStep:
    """meta_step(state, tables, key) -> (state, metrics), compiled; the state is donated.

    θ <- outer update(θ, mean over tasks of ∇_θ L_query(θ_K(θ))). What is random depends on `key`,
    the step and the task's place in the meta-batch only. With `inner.steps` = 0 it is a step of
    ordinary training on the query songs, which is how the population model is made.
    """
    loss = dsaml_loss(model, train=True)
    one_task = functools.partial(
        task_loss,
        lambda *arguments: loss(*arguments)[0],
        loss,
        inner.optimizer.build(),
        steps=inner.steps,
        estimator=inner.estimator,
    )

    def outer_loss(params, task: Task, keys):
        values, (losses, reports) = jax.vmap(one_task, in_axes=(None, 0, 0))(params, task, keys)
        return values.mean(), (losses, reports)

    @functools.partial(jax.jit, donate_argnums=0)
    def meta_step(state: TrainState, tables: Tables, key: jax.Array):
        draw_key, task_key = jax.random.split(jax.random.fold_in(key, state.step))
        draw = draw_tasks(
            draw_key,
            tables,
            meta_batch=tasks.meta_batch,
            support=tasks.support,
            query=tasks.query,
        )
        statistics = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (tasks.meta_batch, *x.shape)), state.statistics
        )
        task = Task(tables.batch(draw.support, statistics), tables.batch(draw.query, statistics))
        keys = jax.vmap(functools.partial(jax.random.fold_in, task_key))(
            jnp.arange(tasks.meta_batch)
        )
        (value, (losses, reports)), gradient = jax.value_and_grad(outer_loss, has_aux=True)(
            state.params, task, keys
        )
        updates, outer = optimizer.update(gradient, state.outer, state.params)
        metrics = {
            "loss": value,
            "score": reports.score.mean(),
            "gradient_norm": optax.global_norm(gradient),
        }
        if inner.steps:
            metrics |= {
                "support_loss_first": losses[:, 0].mean(),
                "support_loss_last": losses[:, -1].mean(),
            }
        moved = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            statistics=jax.tree.map(lambda x: x.mean(0), reports.statistics),
            outer=outer,
        )
        return moved, metrics

    return meta_step
