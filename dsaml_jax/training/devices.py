"""Devices: the tasks of a meta-batch are spread over them; everything else is replicated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dsaml_jax.errors import UserError

TASK = "task"
"""Name of the mesh's only axis."""


def task_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a one-dimensional mesh of the given devices, by default all of all processes."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), (TASK,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a pytree that every process holds to every device, without communication."""
    sharding = replicated(mesh)

    def place(leaf):
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)

    return jax.tree.map(place, tree)


def first_replica(tree: Any) -> Any:
    """Returns this process's first copy of replicated arrays, for single-device computation."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class Layout(NamedTuple):
    """How the tasks of a meta-batch are laid out over devices and time.

    There may be more slots than tasks; the rest is padding, which counts for nothing.

    Attributes:
      devices: number of devices.
      rounds: computed one after another on each device.
      tasks_per_round: tasks that a device computes at once.
    """

    devices: int
    rounds: int
    tasks_per_round: int

    @property
    def slots_per_device(self) -> int:
        """Tasks of a device in all rounds, padding included."""
        return self.rounds * self.tasks_per_round


def task_layout(meta_batch: int, tasks_per_device: int, mesh: Mesh) -> Layout:
    """Returns the layout with the fewest rounds, and among those the least padding.

    Args:
      meta_batch: tasks on all devices together.
      tasks_per_device: most tasks that a device computes at once; 0 for no limit.
      mesh: the devices.

    Raises:
      UserError: some device would have no task.
    """
    devices = mesh.devices.size
    if meta_batch < devices:
        raise UserError(
            f"tasks.meta_batch is {meta_batch}, fewer than the {devices} devices, some of which "
            f"would idle; raise it to {devices} or more, or start with fewer devices."
        )
    share = -(-meta_batch // devices)
    rounds = -(-share // tasks_per_device) if tasks_per_device else 1
    return Layout(devices, rounds, -(-share // rounds))
