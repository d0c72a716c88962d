"""Application of a function to many jobs, in this process or in several."""

from __future__ import annotations

import collections
import importlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from threadpoolctl import threadpool_limits

from dsaml_jax.errors import UserError

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD = 4  # jobs per process that may be running, or finished and not yet consumed


def over_processes(
    function: Callable[[In], Out], jobs: Iterable[In], processes: int
) -> Iterator[Out]:
    """Yields function(job) for each job, in order.

    Each process uses one thread, to avoid contention and so that results do not depend on the
    number of processes. Few results are held at a time, because they may be large.

    Args:
      function: A module-level function, because processes are spawned.
      jobs: Arguments of the function.
      processes: Number of processes; 1 runs in this process, 0 uses one per core.

    Raises:
      UserError: A process died, for example for lack of memory.
    """
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        with _one_thread():
            yield from map(function, jobs)
        return
    jobs = iter(jobs)
    # Importing this compiles into a cache that several processes must not fill at the same time
    # (numba issue 10128), so it is filled here, before they start.
    importlib.import_module("librosa.util.utils")
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of JAX's threads
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start)
    try:
        first = itertools.islice(jobs, processes * _AHEAD)
        waiting = collections.deque(pool.submit(function, job) for job in first)
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, job) for job in itertools.islice(jobs, 1))
            yield result
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the preparation died, perhaps for lack of memory; finished work is kept: "
            "run again with fewer processes (--config.data.processes=1)."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> threadpool_limits:
    """Limits the BLAS libraries of NumPy and SciPy to one thread.

    A library that is loaded later would use a thread per core, so they are imported first.
    """
    for library in ("numpy", "scipy.linalg"):
        importlib.import_module(library)
    return threadpool_limits(1)


def _start() -> None:
    """Initializes a process: one thread, Ctrl-C ignored, and exit when the parent exits."""
    _one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
