"""Songs for the steps of training: on the device, or streamed from the host ahead of each call."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dsaml_jax.data.tables import Tables
from dsaml_jax.training.devices import replicate

BatchSource = Callable[[int, int], Tables]
"""source(first, count) -> replicated tables from which the `count` steps that follow step `first`
draw the same songs as from the whole tables."""

SongsOfStep = Callable[[Tables, jax.Array, jax.Array], jax.Array]
"""songs_of_step(tables, key, step) -> the songs [n] that the step after `step` others needs."""


@contextlib.contextmanager
def open_batch_source(
    tables: Tables, songs_of_step: SongsOfStep, key: jax.Array, mesh: Mesh
) -> Iterator[BatchSource]:
    """Opens the batch source of a stage whose steps draw with `key`.

    Songs in host memory (`data.on_device` = False) are streamed, see `Stream`; others are copied to
    every device once.
    """
    if tables.on_device:
        whole = replicate(tables, mesh)
        yield lambda first, count: whole
        return
    with contextlib.closing(Stream(tables, songs_of_step, key, mesh)) as stream:
        yield stream


class Stream:
    """Sends the songs of each call while the devices compute the call before.

    Draws exactly as the step will. The n songs that it names go to the devices as
    tables of n songs, padded to the same number each time so that one program is compiled, with
    ratings that point to the songs' new places. The results are the same to the bit. Every device
    gets all of them.
    """

    def __init__(self, tables: Tables, songs_of_step: SongsOfStep, key: jax.Array, mesh: Mesh):
        self._songs = tables.log_mel, tables.embedding
        self._song_of = np.asarray(tables.song_of)
        self._mesh = mesh
        ratings = tables.without_songs()
        self._ratings = replicate(ratings, mesh)
        # Drawn on the host: on an accelerator a draw would wait for the running meta-step.
        host_ratings = jax.tree.map(_to_host, ratings)
        host_key = jax.random.wrap_key_data(
            _to_host(jax.random.key_data(key)), impl=jax.random.key_impl(key)
        )
        self._draw = jax.jit(jax.vmap(lambda step: songs_of_step(host_ratings, host_key, step)))
        self._worker = ThreadPoolExecutor(1)
        self._ahead: tuple[tuple[int, int], Future[Tables]] | None = None

    def __call__(self, first: int, count: int) -> Tables:
        call, tables = self._ahead or (None, None)
        if tables is None or call != (first, count):
            tables = self._send(first, count)
        result = tables.result()
        self._ahead = (first + count, count), self._send(first + count, count)
        return result

    def close(self) -> None:
        """Ends the thread that sends songs."""
        self._worker.shutdown(cancel_futures=True)

    def _send(self, first: int, count: int) -> Future[Tables]:
        return self._worker.submit(self._gather, first, count)

    def _gather(self, first: int, count: int) -> Tables:
        steps = _to_host(np.arange(first, first + count, dtype=np.int32))
        needed = np.ravel(self._draw(steps))
        drawn = np.unique(needed)
        songs = np.resize(drawn, min(len(needed), len(self._songs[0])))
        place = np.zeros(len(self._songs[0]), np.int32)
        place[drawn] = np.arange(len(drawn))
        log_mel, embedding, song_of = replicate(
            (*(np.asarray(each[songs]) for each in self._songs), place[self._song_of]), self._mesh
        )
        return self._ratings._replace(log_mel=log_mel, embedding=embedding, song_of=song_of)


def _to_host(array: jax.Array | np.ndarray) -> jax.Array:
    """Copies an array to the CPU, if JAX has that backend."""
    return jax.device_put(np.asarray(array), _host())


@functools.cache
def _host() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None
