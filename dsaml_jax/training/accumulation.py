"""Sums over the tasks of a meta-batch: round after round on a device, then over the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dsaml_jax.training.devices import TASK, Layout

OneTask = Callable[[jax.Array], tuple[Any, Any]]


def sum_over_tasks(one_task: OneTask, like: Any, count: int, layout: Layout) -> tuple[Any, Any]:
    """(Σ_i summed_i, all listed_i stacked along the first axis) of the tasks i < count.

    To be called within `shard_map`. A device has consecutive tasks. It keeps the sum so far, never
    a stack of what is summed, in float32 or better. Sums and lists of all devices are then added up
    as ONE vector, hence by one all-reduce: to the lists each device adds its own rows and zeros.
    Padding computes the last task again and is left out of both, whether it is finite or not.

    Args:
      one_task: one_task(i) -> (summed, listed), any pytrees of arrays.
      like: shapes and types of `summed`.
      count: tasks of the meta-batch.
      layout: where they are computed.
    """
    shape = layout.rounds, layout.together
    place = jax.lax.axis_index(TASK) * layout.tasks_per_device + jnp.arange(layout.tasks_per_device)
    index, real = jnp.minimum(place, count - 1), place < count

    def several(index):
        if layout.together == 1:  # no axis of one task, which would stand in every operation
            return jax.tree.map(lambda x: x[None], one_task(index[0]))
        return jax.vmap(one_task)(index)

    def one_round(total, at):
        index, real = at
        summed, listed = several(index)
        total = jax.tree.map(lambda t, x: t + masked(real, x).sum(0, dtype=t.dtype), total, summed)
        return total, listed

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, wide(x.dtype)), like)
    total, listed = jax.lax.scan(one_round, zero, (index.reshape(shape), real.reshape(shape)))

    def rows(x):
        x = x.reshape(layout.tasks_per_device, *x.shape[2:])
        all_tasks = jnp.zeros((count, *x.shape[1:]), wide(x.dtype))
        return all_tasks.at[index].add(masked(real, x).astype(all_tasks.dtype))

    lists = jax.tree.map(rows, listed)
    if layout.devices > 1:
        flat, unravel = ravel_pytree((total, lists))
        total, lists = unravel(jax.lax.psum(flat, TASK))
    return total, jax.tree.map(lambda rows, x: rows.astype(x.dtype), lists, listed)


def masked(keep: jax.Array, x: jax.Array) -> jax.Array:
    """x where `keep`, over the first axis, and 0 elsewhere."""
    return jnp.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """What values of a type are summed in: never below float32."""
    return jnp.promote_types(dtype, jnp.float32)
