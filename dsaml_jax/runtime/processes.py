"""Runs on several processes, on one or more hosts, each with its own devices.

Each process does everything, with the same results: it reads the data, trains, validates, and
evaluates, so that only sums over tasks are communicated. Process 0 alone writes logs, figures and
tables into the workdir; what the others write goes to a temporary directory. All processes use the
checkpoints in the workdir: Orbax decides which process writes what.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsaml_jax.errors import UserError
from dsaml_jax.runtime import stopping
from dsaml_jax.runtime.differences import differences
from dsaml_jax.runtime.launcher import check_detectable, local_gpus

Result = TypeVar("Result")

AUTO = "auto"


def start_devices() -> None:
    """Starts JAX's devices; raises UserError if there are none of the platform that is set."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or "no such device is found"
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX_PLATFORMS={platforms}: {reason}; install JAX for it as BUILD.md says, or set "
            "JAX_PLATFORMS=cpu."
        ) from error


def initialize_distributed(
    coordinator: str,
    processes: int | None,
    process_id: int | None,
    *,
    initialization_timeout: int = 300,
    heartbeat_timeout: int = 20,
) -> None:
    """Connects this process with the others of its run; must precede any other use of JAX.

    Args:
      coordinator: "" for a single process; "auto" to detect the processes from Slurm, Open MPI,
        Kubernetes or the TPU pod; else HOST:PORT, on which process 0 listens.
      processes: Number of processes if the coordinator is HOST:PORT.
      process_id: Number of this process, 0 <= process_id < processes.
      initialization_timeout: Seconds to wait for the other processes before JAX aborts the program.
      heartbeat_timeout: Seconds without a heartbeat after which a process counts as lost.

    Raises:
      UserError: The flags contradict each other, or the other processes cannot be reached.
    """
    if not coordinator or coordinator == AUTO:
        if processes is not None or process_id is not None:
            raise UserError(
                "--processes and --process_id require --coordinator=HOST:PORT; give all three, or "
                "only --coordinator=auto."
            )
        if not coordinator:
            return
        check_detectable(os.environ)
    elif (
        processes is None
        or process_id is None
        or not 0 <= process_id < processes
        or not re.fullmatch(r".+:\d{1,5}", coordinator, re.ASCII)
        or not 0 < int(coordinator.rpartition(":")[2]) < 2**16
    ):
        raise UserError(
            f"--coordinator={coordinator} --processes={processes} --process_id={process_id}: "
            "expected HOST:PORT with a port from 1 to 65535, the number of processes, and this "
            "process's number (from 0)."
        )
    elif process_id == 0:
        _check_free(int(coordinator.rpartition(":")[2]))
    try:
        jax.distributed.initialize(
            None if coordinator == AUTO else coordinator,
            processes,
            process_id,
            local_gpus(os.environ),
            cluster_detection_method=None if coordinator == AUTO else "deactivate",
            initialization_timeout=initialization_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except UserError:
        raise
    except Exception as error:  # also from a launcher's packages, such as the Kubernetes client
        reason = " ".join(str(error).split())
        if coordinator == AUTO and isinstance(error, ValueError):
            raise UserError(
                "--coordinator=auto found no Slurm, Open MPI, Kubernetes or TPU pod that lists "
                f"the processes ({reason}); give --coordinator=HOST:PORT, --processes and "
                "--process_id."
            ) from error
        raise UserError(
            f"the processes of this run cannot connect ({reason}); make sure that --coordinator is "
            "the host and a free port of process 0, and that all processes are started."
        ) from error


def _check_free(port: int) -> None:
    """Raises UserError if process 0 cannot listen on a port, where JAX would crash."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"process 0 cannot listen on port {port} ({error}); give another in --coordinator."
        ) from error


def is_process_zero() -> bool:
    """Returns whether this is process 0, which writes logs and figures."""
    return jax.process_index() == 0


def require_one_process(mode: str) -> None:
    """Raises UserError if a mode for one process runs on several."""
    if jax.process_count() > 1:
        raise UserError(f"--mode={mode} runs on one process; start it without --coordinator.")


def on_process_zero(action: Callable[[], Result]) -> Result | None:
    """Calls `action` on process 0 while the others wait; returns None on the others.

    Raises:
      UserError: On all processes, if the action raises it on process 0.
    """
    result, failure = None, None
    if is_process_zero():
        try:
            result = action()
        except UserError as error:
            failure = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(
        np.array(failure is not None)
    ):
        failure = failure or UserError("process 0 failed; see its own message for the reason.")
    if failure is not None:
        raise failure
    return result


def process_zero_first(action: Callable[[], Result]) -> Result:
    """Calls `action` on every process, on process 0 before the others.

    So the other processes find what process 0 has stored, if they share its file system.

    Raises:
      UserError: As `on_process_zero`.
    """
    result = on_process_zero(action)
    return cast(Result, result) if is_process_zero() else action()


@contextlib.contextmanager
def process_workdir(path: Path, locked: AbstractContextManager[Path]) -> Iterator[Path]:
    """Yields the workdir, locked by process 0; the other processes get a temporary directory.

    The temporary directory is deleted on exit; its checkpoints are those of the workdir at `path`.
    """
    with contextlib.ExitStack() as stack:
        workdir = on_process_zero(lambda: stack.enter_context(locked))
        if workdir is None:
            workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsaml_jax_")))
            stopping.TO_DELETE.append(workdir)
            (workdir / "checkpoints").symlink_to(path.absolute() / "checkpoints")
        yield workdir


def check_agreement(what: str, content: Any) -> None:
    """Raises UserError on every process unless all have the same `content`.

    Args:
      what: Name of the content, for the message.
      content: A pytree of arrays, or a JSON-compatible dict, whose fields the message names.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(digest(content), np.uint8)
    digests = np.asarray(multihost_utils.process_allgather(own)).reshape(jax.process_count(), -1)
    different = np.flatnonzero((digests != digests[0]).any(1))
    if len(different):
        fields = _different_fields(content, int(different[0]))
        named = f": {'; '.join(fields)}" if fields else ""
        raise UserError(
            f"process {different[0]} of {len(digests)} has different {what} than process 0 "
            f"({len(different)} differ){named}; start all of them with the same flags and data."
        )


def _different_fields(content: Any, process: int) -> list[str]:
    """Lists the fields in which a process differs from process 0; none unless content is JSON."""
    try:
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    except TypeError:  # it holds arrays
        return []
    longest = int(np.max(multihost_utils.process_allgather(np.array(len(text)))))
    padded = np.pad(text, (0, longest - len(text)), constant_values=ord(" "))
    texts = np.asarray(multihost_utils.process_allgather(padded))
    first, other = (json.loads(texts[i].tobytes()) for i in (0, process))
    return differences(first, other)


def digest(content: Any) -> bytes:
    """Returns 32 bytes that differ if any value, shape or type does."""
    hasher = hashlib.sha256()
    for leaf in jax.tree.leaves(content):
        if isinstance(leaf, jax.Array | np.ndarray):
            array = np.ascontiguousarray(leaf)
            hasher.update(f"{array.dtype} {array.shape}".encode())
            hasher.update(array.reshape(-1).view(np.uint8).data)  # bfloat16 has no buffer
        else:
            hasher.update(repr(leaf).encode())
    return hasher.digest()
