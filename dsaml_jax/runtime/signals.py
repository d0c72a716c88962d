"""SIGTERM, which schedulers send, and Ctrl-C, while training: a run stops between its steps."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from dsaml_jax.runtime import stopping

StopRequest = Callable[[], str]
"""Returns the signal that asked the run to stop, or "". All processes of a run must call it equally
often, and get the same answer. After a signal has been returned, the time is no longer limited."""

_SYNC_POINTS = itertools.count()
"""Numbers at one of which JAX's runtime stops all processes; they must never repeat."""

_OWN_SIGNALS = signal.SIGTERM, signal.SIGINT


@contextlib.contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Only records SIGTERM and the first SIGINT; the caller polls between its steps.

    Several processes poll JAX's distributed runtime instead, which has its own handler of SIGTERM
    and stops all of them at the same step. A caller that does not poll within the grace of the
    program's `Stopper` is not waited for: the program ends.
    """
    received: list[str] = []

    def note(number: int, frame) -> None:
        if received and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        received.append(signal.Signals(number).name)
        # Not through the logger, which the signal may have interrupted.
        os.write(2, f"{received[-1]}: stopping after this step\n".encode())

    def stop_request() -> str:
        found = received[0] if received else ""
        if jax.process_count() > 1:
            stop = multihost_utils.reached_preemption_sync_point(next(_SYNC_POINTS))
            found = "SIGTERM" if stop else ""
        if found:
            stopping.STOPPER.saving()
        return found

    handled = _handled(note, _OWN_SIGNALS if jax.process_count() == 1 else ())
    with stopping.STOPPER.deferred(), handled:
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
