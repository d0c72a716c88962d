"""Being stopped from outside: SIGTERM, as schedulers send it, and Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

Asked = Callable[[], str]
"""asked() -> the signal by which the run was asked to stop, or "". Every process of a run asks as
often, and gets the same answer."""

_QUESTIONS = itertools.count()
"""JAX's runtime lets all processes stop at the same one of these, which must not start anew."""

_OWN_SIGNALS = signal.SIGTERM, signal.SIGINT


@contextlib.contextmanager
def exit_on_signal(code: int) -> Iterator[None]:
    """Where SIGTERM and SIGINT end the process with `code`, wherever it is, and one line.

    An exception would not do: raised while Python collects garbage, it is printed and forgotten.
    Nothing needs to be unwound, since files are written whole or not at all. Of a run on several
    processes none may end alone: there JAX's handler stays, which `defer_signals` asks.
    """

    def stop(number: int, frame) -> None:
        del frame
        name = signal.Signals(number).name
        line = f"stopped by {name}; what is done is kept: run the same command again to go on.\n"
        os.write(2, line.encode())
        os._exit(code)

    with _handled(stop, _OWN_SIGNALS if jax.process_count() == 1 else ()):
        yield


@contextlib.contextmanager
def defer_signals() -> Iterator[Asked]:
    """Where SIGTERM, and the first SIGINT, are only noted: the caller asks between its steps.

    Several processes ask JAX's distributed runtime instead, which has its own handler of SIGTERM
    and lets all of them stop at the same step.
    """
    noted: list[str] = []

    def note(number: int, frame) -> None:
        if noted and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        noted.append(signal.Signals(number).name)
        # Not through the logger: the signal may have come while it was writing.
        os.write(2, f"{noted[-1]}: stopping after this step\n".encode())

    def asked() -> str:
        if jax.process_count() > 1:
            stop = multihost_utils.reached_preemption_sync_point(next(_QUESTIONS))
            return "SIGTERM" if stop else ""
        return noted[0] if noted else ""

    with _handled(note, _OWN_SIGNALS if jax.process_count() == 1 else ()):
        yield asked


@contextlib.contextmanager
def _handled(handler: Callable, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """With a handler of these signals; outside the main thread, which alone may set one, none."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
