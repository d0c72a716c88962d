"""Early termination of a program: by a signal, an error, or another process of its run.

Nothing is unwound: files are written atomically, and an exception could be swallowed where it is
raised. In a run on several processes none may end alone, since the others would wait for it. They
share a note in JAX's key-value store, which a thread of each process watches: it holds the exit
code and the sentence with which all of them end. A process that ends without a note stops sending
heartbeats; JAX's runtime then aborts the others, which report it and exit with a code that means
"run the same command again".
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax

from dsaml_jax.errors import UserError

RUN_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command resumes."""

TO_DELETE: list[Path] = []
"""Temporary folders of this process."""

_NOTE = "dsaml_jax/stop"
_ENDED = "dsaml_jax/ended/"
_SIGTERM_NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # written by JAX when any process gets SIGTERM
_POLL_S = 0.5
_FAREWELL_S = 10.0
"""Seconds that process 0, which holds the store, waits for the others to read the note."""

_ending = threading.Lock()


class Stopper:
    """Ends this program, and with it the other processes of its run.

    Attributes:
      grace: seconds that training has, after a signal, to reach the end of a step.
    """

    def __init__(self, program: str = "dsaml", grace: float = 20.0):
        self.grace = grace
        self._program = program
        self._client: Any = None
        self._heartbeat_timeout = 0.0
        self._aborted: Any = None
        self._deferred = self._heard = ""
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def join_run(self, heartbeat_timeout: float) -> None:
        """Starts watching the run's note if `jax.distributed` has several processes.

        Args:
          heartbeat_timeout: seconds after which JAX counts another process as lost.
        """
        if jax.process_count() > 1:
            from jax._src.distributed import global_state  # the store has no public name

            self._client, self._heartbeat_timeout = global_state.client, heartbeat_timeout
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    @property
    def joined(self) -> bool:
        """Whether this process is connected with others."""
        return self._client is not None

    def expect_abort(self, sentence: str, code: int = RUN_AGAIN) -> None:
        """Makes an abort by JAX's runtime print a sentence and exit with `code`.

        It aborts a process that has lost the others, in C++, where no exception can be caught.
        """

        def aborted(number: int) -> None:
            del number
            _write(f"{self._program}: {sentence}\n")
            os._exit(code)

        self._aborted = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)  # kept alive
        ctypes.CDLL(None).signal(int(signal.SIGABRT), self._aborted)

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def end(self, code: int, sentence: str) -> NoReturn:
        """Prints a sentence and exits at once, as do all other processes of the run."""
        if not _ending.acquire(blocking=False):  # another thread does it
            time.sleep(2 * _FAREWELL_S)
        if self._client is not None:
            others = f"process {jax.process_index()} of {jax.process_count()}: {sentence}"
            with contextlib.suppress(Exception):  # another process was first, or all is lost
                self._client.key_value_set(_NOTE, json.dumps([code, others]))
        self._exit(code, sentence)

    def fail(self, error: Exception) -> None:
        """Ends a run on several processes because of a bug in this one, with its traceback.

        If the error may come from the loss of another process, JAX is given time to notice. Does
        nothing in a run on one process.
        """
        if self._client is None:
            return
        if _may_be_a_lost_process(error):
            time.sleep(self._heartbeat_timeout + 5.0)  # the watching thread ends the program
        traceback.print_exception(error)
        self.end(1, f"failed ({type(error).__name__}; its log has the traceback).")

    def signaled(self, name: str) -> None:
        """Ends the program with `RUN_AGAIN`, or, within `deferred`, after `grace` seconds."""
        self._heard = name
        if not self._deferred:
            self.end(RUN_AGAIN, _stopped_by(name))
        timer = threading.Timer(self.grace, self._expired, (self._deferred,))
        timer.daemon = True
        timer.start()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Gives the caller `grace` seconds after a signal to end the program."""
        self._deferred = f"deferred at {time.monotonic()}"
        try:
            yield
        except BaseException:
            self._deferred = ""
            raise
        self._deferred = ""
        if self._heard and self._client is not None:
            # It came too late for the caller to agree with other processes on a step.
            self.end(RUN_AGAIN, _stopped_by(self._heard))

    def saving(self) -> None:
        """Lifts the time limit of `deferred`, so that the caller can write a checkpoint."""
        self._deferred = "saving"

    def _expired(self, deferred: str) -> None:
        if self._deferred == deferred:
            self.end(RUN_AGAIN, _stopped_by(self._heard))

    def _watch(self) -> None:
        while not self._closed.wait(_POLL_S):
            note = self._read(_NOTE)
            if note and _ending.acquire(blocking=False):
                code, sentence = json.loads(note)
                self._exit(code, sentence)
            if not self._heard and self._read(_SIGTERM_NOTICE):
                self.signaled("SIGTERM")

    def _read(self, key: str) -> str:
        try:
            return self._client.key_value_try_get(key)
        except (RuntimeError, ValueError):  # not there, or the store is lost: JAX aborts then
            return ""

    def _exit(self, code: int, sentence: str) -> NoReturn:
        if threading.current_thread() is threading.main_thread():
            sys.stdout.flush()  # another thread might wait for it forever
        _write(f"{self._program}: {sentence}\n")
        for folder in TO_DELETE:
            shutil.rmtree(folder, ignore_errors=True)
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.key_value_set(f"{_ENDED}{jax.process_index()}", "")
            until = time.monotonic() + _FAREWELL_S
            while jax.process_index() == 0 and time.monotonic() < until:
                with contextlib.suppress(Exception):
                    if len(self._client.key_value_dir_get(_ENDED)) == jax.process_count():
                        break
                time.sleep(0.1)
        os._exit(code)


STOPPER = Stopper()
"""The stopper of this program; `cli.main` replaces it with one that has the program's name."""


@contextlib.contextmanager
def wakeup(stopper: Stopper) -> Iterator[None]:
    """Notifies `stopper` of SIGTERM and SIGINT even while the main thread compiles.

    Python's own handlers wait until the main thread is back from C++. On several processes SIGTERM
    is left to JAX, which notifies all of them; SIGINT is forwarded as SIGTERM.
    """
    several = jax.process_count() > 1
    numbers = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def read() -> None:
        while data := os.read(reader, 1):
            if data[0] not in numbers:
                continue
            if several:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                stopper.signaled(signal.Signals(data[0]).name)

    def handle(number: int, frame: Any) -> None:
        del frame
        if not several:
            stopper.signaled(signal.Signals(number).name)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    before = {number: signal.signal(number, handle) for number in numbers}
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)
        thread.join()
        os.close(reader)


def _stopped_by(name: str) -> str:
    return f"stopped by {name}; finished work is kept: run the same command to resume."


def _may_be_a_lost_process(error: BaseException | None) -> bool:
    """Returns whether an error may come from a broken connection to another process."""
    marks = "Gloo", "NCCL", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "oordination"
    while error is not None and not isinstance(error, UserError):
        if any(mark in str(error) for mark in marks):
            return True
        error = error.__cause__ or error.__context__
    return False


def _write(line: str) -> None:
    # `print` and the logger may be interrupted in the middle of a line.
    os.write(2, line.encode(errors="replace"))
