"""The feature store: arrays on disk, by what they were computed from.

Layout: `{folder}/{kind}/{key}.npz`, kind "log_mel" or "embedding". A key is a hash of all that an
entry depends on: the audio file's content, every parameter, the span, the embedding's weights.
So an entry is never out of date, two data sets may share a store, and any file may be deleted.

An entry is written to a file of another name, flushed to the disk and then renamed: whatever stops
the program leaves whole entries and perhaps a `.partial` file, which a later run removes.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import PARTIAL, PREPARED_REMEDY, atomic_write

KINDS = ("log_mel", "embedding")
_ABANDONED_S = 600  # nobody writes one entry for so long


def entry_key(**parts: Any) -> str:
    """A hash of named parts, each of which JSON can hold; the order does not matter."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def bytes_hash(content: bytes) -> str:
    """A hash of bytes, for `entry_key`."""
    return hashlib.sha256(content).hexdigest()


def entry_path(folder: str | Path, kind: str, key: str) -> Path:
    """Where an entry is, or would be."""
    return Path(folder) / kind / f"{key}.npz"


def write(path: Path, **arrays: np.ndarray) -> None:
    """Writes an entry, whole or not at all. The same arrays give the same bytes.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    with atomic_write(path, PREPARED_REMEDY) as file:
        np.savez(file, **arrays)


def read(path: Path, *names: str) -> dict[str, np.ndarray]:
    """An entry's arrays: those of these names, or all.

    Raises:
      UserError: there is none, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as entry:
            return {name: entry[name] for name in names or entry.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it and prepare the data set again."
        ) from error


def remove_partial(folder: str | Path) -> int:
    """Removes what interrupted writes have left behind; returns how many files."""
    removed = 0
    for path in Path(folder).glob(f"*/*{PARTIAL}"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # another run removed it
            continue
    return removed
