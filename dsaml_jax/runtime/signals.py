"""Handling of SIGTERM, which schedulers send, and of Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

StopRequest = Callable[[], str]
"""Returns the signal that asked the run to stop, or "". All processes of a run must call it equally
often, and get the same answer."""

_SYNC_POINTS = itertools.count()
"""Numbers at one of which JAX's runtime stops all processes; they must never repeat."""

_OWN_SIGNALS = signal.SIGTERM, signal.SIGINT


@contextlib.contextmanager
def exit_on_signal(code: int) -> Iterator[None]:
    """On SIGTERM or SIGINT, prints one line and exits immediately with `code`.

    An exception would not do: if it is raised during garbage collection, Python prints and ignores
    it. Nothing needs to be unwound, since files are written atomically. In a run on several
    processes none may exit alone, so JAX's handler stays in place, which `defer_signals` queries.
    """

    def stop(number: int, frame) -> None:
        del frame
        name = signal.Signals(number).name
        line = f"stopped by {name}; finished work is kept: run the same command to resume.\n"
        os.write(2, line.encode())
        os._exit(code)

    with _handled(stop, _OWN_SIGNALS if jax.process_count() == 1 else ()):
        yield


@contextlib.contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Only records SIGTERM and the first SIGINT; the caller polls between its steps.

    Several processes poll JAX's distributed runtime instead, which has its own handler of SIGTERM
    and stops all of them at the same step.
    """
    received: list[str] = []

    def note(number: int, frame) -> None:
        if received and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        received.append(signal.Signals(number).name)
        # Not through the logger, which the signal may have interrupted.
        os.write(2, f"{received[-1]}: stopping after this step\n".encode())

    def stop_request() -> str:
        if jax.process_count() > 1:
            stop = multihost_utils.reached_preemption_sync_point(next(_SYNC_POINTS))
            return "SIGTERM" if stop else ""
        return received[0] if received else ""

    with _handled(note, _OWN_SIGNALS if jax.process_count() == 1 else ()):
        yield stop_request


@contextlib.contextmanager
def _handled(handler: Callable, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Installs a handler of these signals, except outside the main thread, which Python forbids."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
