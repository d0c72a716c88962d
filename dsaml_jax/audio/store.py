"""The feature store: arrays on disk, addressed by a hash of what they were computed from.

Layout: `{folder}/{kind}/{key}.npz`, kind "log_mel" or "embedding". A key is a hash of everything
that an entry depends on: the audio file's content, all parameters, the span, the embedding's
weights. So entries are never out of date, data sets may share a store, and any file may be deleted.

An entry is written to a temporary file, flushed to disk and then renamed: an interruption leaves
complete entries and perhaps a `.partial` file, which a later run removes.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.runtime.arrays import read_arrays
from dsaml_jax.runtime.files import PARTIAL, PREPARED_REMEDY, atomic_write

KINDS = ("log_mel", "embedding")
_ABANDONED_S = 600  # writing one entry never takes this long


def entry_key(**parts: Any) -> str:
    """Returns a hash of named, JSON-serializable parts; their order does not matter."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def bytes_hash(content: bytes) -> str:
    """Returns a hash of bytes, for `entry_key`."""
    return hashlib.sha256(content).hexdigest()


def entry_path(folder: str | Path, kind: str, key: str) -> Path:
    """Returns the path of an entry, whether or not it exists."""
    return Path(folder) / kind / f"{key}.npz"


def write(path: Path, **arrays: np.ndarray | np.generic) -> None:
    """Writes an entry atomically. The same arrays give the same bytes.

    Raises:
      UserError: The folder cannot be written, or the disk is full.
    """
    with atomic_write(path, PREPARED_REMEDY) as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] - no key is allow_pickle


def read(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Returns an entry's arrays: those with the given names, or all.

    Raises:
      UserError: The entry does not exist or is damaged.
    """
    return read_arrays(path, *names, remedy="delete it and prepare the data set again")


def is_whole(path: Path) -> bool:
    """Returns whether an entry exists and is not truncated, by the directory at its end."""
    try:
        with zipfile.ZipFile(path) as entry:
            return bool(entry.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def remove_partial(folder: str | Path) -> int:
    """Removes files that interrupted writes left behind, and returns their number."""
    removed = 0
    for path in Path(folder).glob(f"*/*{PARTIAL}"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
                removed += 1
        except OSError:  # another run removed it, or the store is read-only
            continue
    return removed
