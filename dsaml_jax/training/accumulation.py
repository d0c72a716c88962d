"""Sums over the tasks of a meta-batch: round after round on a device, then over the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dsaml_jax.training.devices import TASK, Layout

OneTask = Callable[[jax.Array], tuple[Any, Any]]


def sum_over_tasks(one_task: OneTask, template: Any, count: int, layout: Layout) -> tuple[Any, Any]:
    """Computes (Σ_i summed_i, all listed_i stacked along the first axis) over the tasks i < count.

    Must be called inside `shard_map`. A device has consecutive tasks and keeps a running sum in
    float32 or wider, never a stack of what is summed. Sums and lists are then added over devices
    as ONE vector, so by one all-reduce; each device contributes its own rows of the lists, and
    zeros elsewhere. Padding computes the last task again and counts for nothing, finite or not.

    Args:
      one_task: one_task(i) -> (summed, listed), any pytrees of arrays.
      template: a pytree with the shapes and types of `summed`.
      count: tasks of the meta-batch.
      layout: where they are computed.
    """
    shape = layout.rounds, layout.tasks_per_round
    slots = layout.slots_per_device
    place = jax.lax.axis_index(TASK) * slots + jnp.arange(slots)
    index, is_task = jnp.minimum(place, count - 1), place < count

    def one_round_of_tasks(index):
        if layout.tasks_per_round == 1:  # no axis of length one, which every operation would carry
            return jax.tree.map(lambda x: x[None], one_task(index[0]))
        return jax.vmap(one_task)(index)

    def add_round(total, round_):
        index, is_task = round_
        summed, listed = one_round_of_tasks(index)
        total = jax.tree.map(
            lambda t, x: t + zero_rows(is_task, x).sum(0, dtype=t.dtype), total, summed
        )
        return total, listed

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, accumulator_dtype(x.dtype)), template)
    total, listed = jax.lax.scan(add_round, zero, (index.reshape(shape), is_task.reshape(shape)))

    def own_rows(x):
        x = x.reshape(slots, *x.shape[2:])
        all_tasks = jnp.zeros((count, *x.shape[1:]), accumulator_dtype(x.dtype))
        return all_tasks.at[index].add(zero_rows(is_task, x).astype(all_tasks.dtype))

    lists = jax.tree.map(own_rows, listed)
    if layout.devices > 1:
        flat, unravel = ravel_pytree((total, lists))
        total, lists = unravel(jax.lax.psum(flat, TASK))
    return total, jax.tree.map(lambda rows, x: rows.astype(x.dtype), lists, listed)


def zero_rows(keep: jax.Array, x: jax.Array) -> jax.Array:
    """Zeroes the rows of `x` where `keep` is False."""
    return jnp.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def accumulator_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the type in which values of `dtype` are summed: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)
