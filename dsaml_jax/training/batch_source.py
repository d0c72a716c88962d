"""Where the songs of a meta-step come from: all are on the device, or they are sent ahead."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.training.devices import replicate
from dsaml_jax.training.step import draw_step

BatchSource = Callable[[int, int], Tables]
"""feed(first, count) -> tables on every device, from which the meta-steps after `first` others,
`count` of them, draw what they would draw from the whole tables."""


@contextlib.contextmanager
def open_batch_source(
    tables: Tables, tasks: TaskConfig, key: jax.Array, mesh: Mesh
) -> Iterator[BatchSource]:
    """The feed of a stage whose meta-steps draw with `key`.

    Songs in host memory (`data.on_device` = False) are streamed: see `Stream`. Others are put on
    every device once.
    """
    if tables.on_device:
        whole = replicate(tables, mesh)
        yield lambda first, count: whole
        return
    with contextlib.closing(Stream(tables, tasks, key, mesh)) as stream:
        yield stream


class Stream:
    """Sends the songs of each call ahead, while the devices compute the one before.

    Tasks are drawn here as the meta-step will draw them itself. The songs they name, n of N, go to
    the devices as tables of n songs (filled up to the same number each time, so that one program
    is compiled), in which the ratings point to their new places: the meta-step cannot tell, and
    its results are the same to the bit. Every device gets the songs of all tasks.
    """

    def __init__(self, tables: Tables, tasks: TaskConfig, key: jax.Array, mesh: Mesh):
        self._songs = tables.log_mel, tables.embedding
        self._song_of = np.asarray(tables.song_of)
        self._mesh = mesh
        nothing = jnp.zeros((0,))
        ratings = tables._replace(log_mel=nothing, embedding=nothing)
        self._ratings = replicate(ratings, mesh)
        # On an accelerator a draw would wait for the meta-step under way: it is the host's.
        few = jax.tree.map(_to_host, ratings)
        host_key = jax.random.wrap_key_data(
            _to_host(jax.random.key_data(key)), impl=jax.random.key_impl(key)
        )
        self._draw = jax.jit(jax.vmap(lambda step: draw_step(tasks, few, host_key, step)[0]))
        self._worker = ThreadPoolExecutor(1)
        self._ahead: tuple[tuple[int, int], Future[Tables]] | None = None

    def __call__(self, first: int, count: int) -> Tables:
        if self._ahead is None or self._ahead[0] != (first, count):
            self._send(first, count)
        tables = self._ahead[1].result()
        self._send(first + count, count)
        return tables

    def close(self) -> None:
        """Ends the thread."""
        self._worker.shutdown(cancel_futures=True)

    def _send(self, first: int, count: int) -> None:
        self._ahead = (first, count), self._worker.submit(self._tables_of, first, count)

    def _tables_of(self, first: int, count: int) -> Tables:
        draw = self._draw(_to_host(np.arange(first, first + count, dtype=np.int32)))
        ratings = np.concatenate([np.ravel(draw.support), np.ravel(draw.query)])
        drawn = np.unique(self._song_of[ratings])
        songs = np.resize(drawn, min(len(ratings), len(self._songs[0])))
        place = np.zeros(len(self._songs[0]), np.int32)
        place[drawn] = np.arange(len(drawn))
        log_mel, embedding, song_of = replicate(
            (*(np.asarray(each[songs]) for each in self._songs), place[self._song_of]), self._mesh
        )
        return self._ratings._replace(log_mel=log_mel, embedding=embedding, song_of=song_of)


def _to_host(array: jax.Array | np.ndarray) -> jax.Array:
    """A copy on the CPU, where JAX has one."""
    return jax.device_put(np.asarray(array), _host())


@functools.cache
def _host() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None
