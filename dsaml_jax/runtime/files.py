"""Atomic writing of files, and messages about what prevents it."""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dsaml_jax.errors import UserError

LOG = logging.getLogger(__name__)

PARTIAL = ".partial"
"""Suffix of files that are being written, or whose writing was interrupted."""

REMEDY = "free disk space or fix the permissions"
PREPARED_REMEDY = "free disk space or choose another folder with data.prepared"

_STORAGE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
)
_STORAGE_TEXT = re.compile("|".join(re.escape(os.strerror(code)) for code in _STORAGE))


class CannotWrite(UserError):
    """A file or folder that cannot be written, which is no fault of what is to be written."""


@contextlib.contextmanager
def atomic_write(path: Path, remedy: str = REMEDY) -> Iterator[IO[bytes]]:
    """Opens a file that appears under its name once it is complete and flushed to disk.

    An existing file stays until then; a failure leaves it unchanged.

    Args:
      path: Path of the file; its folder is created if necessary.
      remedy: What the user can do if this fails, for the message.

    Raises:
      CannotWrite: The file cannot be written.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.stem, suffix=PARTIAL, delete=False
        ) as file:
            partial = file.name
            yield file.file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error, remedy) from error
        raise


@contextlib.contextmanager
def locked(path: Path, remedy: str = PREPARED_REMEDY) -> Iterator[None]:
    """Holds a lock on a file, created if necessary; waits while another process holds it.

    The system releases the lock however this process ends. Without write permission, or on a file
    system without locks, nothing is locked.

    Raises:
      UserError: The folder of the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise cannot_write(path.parent, error, remedy) from error
    try:
        file = path.open("a")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise cannot_write(path.parent, error, remedy) from error
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("waiting for another preparation in %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            LOG.warning("%s cannot be locked (%s): start no second run there", path.parent, error)
        yield


def is_utf8(name: str) -> bool:
    """Returns whether a file name is UTF-8; other names contain lone surrogates."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; raises UserError as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically; raises UserError as `atomic_write` does."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object, with or without a byte order mark.

    Raises:
      ValueError: It holds something else, or an object that repeats a name, of which Python would
        keep the last value; the message says what.
      OSError: It cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_unique_names)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, expected a JSON object")
    return content


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (name, _), *_ = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object has {name[:40]!a} twice")  # may hold lone surrogates
    return content


def cannot_write(path: str | Path, error: BaseException, remedy: str = REMEDY) -> CannotWrite:
    """Returns the error to raise if `path` cannot be written."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        place = Path(error.filename or path)
        blocked = next((each for each in (place, *place.parents) if each.is_file()), place)
        other = "choose another folder with data.prepared, or " * (remedy == PREPARED_REMEDY)
        return CannotWrite(
            f"{blocked} is a file, where a folder is needed; {other}move it away, and run the "
            "same command again."
        )
    reason = storage_reason(error) or getattr(error, "strerror", None) or error
    return CannotWrite(
        f"{path} cannot be written ({reason}); finished work is kept: {remedy}, and run the same "
        "command again."
    )


def storage_reason(error: BaseException) -> str | None:
    """Returns why a file system refused, such as "No space left on device"; None for other errors.

    Libraries that do not write through Python give the reason only in their message.
    """
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return os.strerror(error.errno)
    reason = _STORAGE_TEXT.search(str(error))
    return reason[0] if reason else None
