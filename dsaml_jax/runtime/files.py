"""Files that are written whole or not at all, and what may stand in the way."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dsaml_jax.errors import UserError

PARTIAL = ".partial"
"""How files end that are still being written, or whose writing was cut off."""

REMEDY = "make room or mend that"
PREPARED_REMEDY = "make room or choose another folder with data.prepared"

_STORAGE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
)
_STORAGE_TEXT = re.compile("|".join(re.escape(os.strerror(code)) for code in _STORAGE))


@contextlib.contextmanager
def atomic_write(path: Path, remedy: str = REMEDY) -> Iterator[BinaryIO]:
    """A file that appears under its name once it is complete and on the disk.

    What was there before stays until then; a failure leaves it as it was.

    Args:
      path: the name; its folder is made if need be.
      remedy: what to do where that fails, for the message.

    Raises:
      UserError: the file cannot be written.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.stem, suffix=PARTIAL, delete=False
        ) as file:
            partial = file.name
            yield file
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


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all; raises UserError as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all; raises UserError as `atomic_write` does."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def cannot_write(path: str | Path, error: BaseException, remedy: str = REMEDY) -> UserError:
    """The error to raise where `path` cannot be written."""
    reason = storage_reason(error) or getattr(error, "strerror", None) or error
    return UserError(
        f"{path} cannot be written ({reason}); what is done is kept: {remedy}, and run again."
    )


def storage_reason(error: BaseException) -> str | None:
    """Why a file system refused, such as "No space left on device"; None for other errors.

    Libraries that write by other means than Python's tell the reason in their message only.
    """
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return os.strerror(error.errno)
    told = _STORAGE_TEXT.search(str(error))
    return told[0] if told else None
