"""Several processes, on one host or many: each runs the same program on devices of its own.

Every process does everything, so that nothing needs to be sent but the sums over tasks: it reads
the data, trains, validates, and evaluates, with the same results. The first one alone writes logs,
figures and tables into the workdir; what others write goes to a folder that is thrown away. The
checkpoints of all are those of the workdir: orbax decides which process writes what.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsaml_jax.errors import UserError

Result = TypeVar("Result")

AUTO = "auto"


def join(coordinator: str, processes: int | None, process_id: int | None) -> None:
    """Joins this process with the others of its run; must come before anything else of JAX.

    Args:
      coordinator: "" for a process alone; "auto" to ask Slurm, Open MPI, Kubernetes or the TPU pod
        who takes part; else HOST:PORT, where the first process listens.
      processes: how many there are, if the coordinator is given.
      process_id: which one this is, 0 <= process_id < processes.

    Raises:
      UserError: the flags contradict each other, or the others cannot be found.
    """
    given = (processes is not None, process_id is not None)
    if not coordinator or coordinator == AUTO:
        if any(given):
            raise UserError(
                "--processes and --process_id go with --coordinator=HOST:PORT; give all three, or "
                "--coordinator=auto alone."
            )
        if not coordinator:
            return
    elif not all(given) or not 0 <= process_id < processes or ":" not in coordinator:
        raise UserError(
            f"--coordinator={coordinator} --processes={processes} --process_id={process_id}: "
            "expected HOST:PORT, a number of processes, and a number from 0 up to one less than it."
        )
    try:
        if coordinator == AUTO:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"The processes of this run did not find each other ({reason}); is --coordinator the "
            "host and a free port of process 0, and are all processes started?"
        ) from error


def is_process_zero() -> bool:
    """Whether this process writes logs and figures."""
    return jax.process_index() == 0


def require_one_process(mode: str) -> None:
    """Raises UserError where a mode for one process runs on several."""
    if jax.process_count() > 1:
        raise UserError(f"--mode={mode} runs on one process; start it without --coordinator.")


def on_process_zero(action: Callable[[], Result]) -> Result | None:
    """Calls `action` in the first process, for which the others wait; they get None.

    Raises:
      UserError: in every process, if the first one's action does.
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
        failure = failure or UserError("Process 0 cannot go on; its own message says why.")
    if failure is not None:
        raise failure
    return result


def process_zero_first(action: Callable[[], Result]) -> Result:
    """Calls `action` in every process, in the first one before the others.

    So what it prepares and stores is there already for processes that share its file system.

    Raises:
      UserError: as `on_process_zero`.
    """
    result = on_process_zero(action)
    return result if is_process_zero() else action()


@contextlib.contextmanager
def process_workdir(path: Path, held: AbstractContextManager[Path]) -> Iterator[Path]:
    """The workdir, held by the first process; of others a temporary folder, which goes again.

    Its checkpoints are those of the workdir at `path`.
    """
    with contextlib.ExitStack() as stack:
        workdir = on_process_zero(lambda: stack.enter_context(held))
        if workdir is None:
            workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsaml_jax_")))
            (workdir / "checkpoints").symlink_to(path.absolute() / "checkpoints")
        yield workdir


def check_agreement(what: str, content: Any) -> None:
    """Raises UserError, in every process, unless all have the same `content`.

    Args:
      what: its name in the message.
      content: a pytree of arrays, or anything whose `repr` tells all of it.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(digest(content), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(own)).reshape(jax.process_count(), -1)
    apart = np.flatnonzero((every != every[0]).any(1))
    if len(apart):
        raise UserError(
            f"Process {apart[0]} of {len(every)} has other {what} than process 0 ({len(apart)} "
            "differ); start all of them with the same flags, on the same prepared data."
        )


def digest(content: Any) -> bytes:
    """32 bytes that differ where any value, shape or type does."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(content):
        if isinstance(leaf, jax.Array | np.ndarray):
            array = np.ascontiguousarray(leaf)
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(array.data)
        else:
            found.update(repr(leaf).encode())
    return found.digest()
