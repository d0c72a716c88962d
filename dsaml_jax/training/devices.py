"""Devices: the tasks of a meta-batch are spread over them, everything else is on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dsaml_jax.errors import UserError

TASK = "task"
"""The one axis of the mesh."""


def task_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes, or those given, in a row."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), (TASK,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a pytree that every process has to every device; nothing is sent between processes."""
    sharding = replicated(mesh)

    def place(leaf):
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)

    return jax.tree.map(place, tree)


def first_replica(tree: Any) -> Any:
    """This process's first copy of replicated arrays: what one device computes alone takes it."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class Layout(NamedTuple):
    """How a meta-batch is computed: `rounds`, one after another, of `together` tasks a device.

    There may be more places than tasks; those left over are padding and count for nothing.
    """

    devices: int
    rounds: int
    together: int

    @property
    def tasks_per_device(self) -> int:
        return self.rounds * self.together


def task_layout(meta_batch: int, tasks_per_device: int, mesh: Mesh) -> Layout:
    """The layout with the fewest rounds of at most `tasks_per_device` tasks a device (0 for all), and of
    those the one with the least padding.

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
