"""The same function over many jobs, in this process or in several."""

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

_AHEAD = 4  # jobs a process that are under way or done and not yet taken


def over_processes(
    function: Callable[[In], Out], jobs: Iterable[In], processes: int
) -> Iterator[Out]:
    """function(job) of each job, in order.

    Every process computes with one thread, so that they do not get in each other's way, and so
    that results do not depend on their number. Few results wait at a time: they may be large.

    Args:
      function: of a module's top level, because processes are started afresh.
      jobs: its arguments.
      processes: how many; 1 for none but this one, 0 for one a core.

    Raises:
      UserError: a process died, of lack of memory for example.
    """
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        with threadpool_limits(1):
            yield from map(function, jobs)
        return
    jobs = iter(jobs)
    # Importing this compiles into a cache that is not safe to fill from several processes at once
    # (numba issue 10128): it is filled here, before they start.
    importlib.import_module("librosa.util.utils")
    context = multiprocessing.get_context("spawn")  # a fork would share the threads' locks of JAX
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
            "a process of the preparation died, perhaps for lack of memory; what is done is kept: "
            "run again, with fewer processes (--config.data.processes=1)."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Once in each process: one thread, no word about Ctrl-C, and no life after the parent's."""
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
