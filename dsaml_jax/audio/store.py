"""The feature store: arrays on disk, addressed by a hash of what they were computed from.

Layout: `{folder}/{kind}/{key}.npz`, kind "log_mel" or "embedding". A key is a hash of everything
that an entry depends on: the audio file's content, all parameters, the span, the embedding's
weights. So entries are never out of date, data sets may share a store, and any file may be deleted.

An entry is written to a temporary file, flushed to disk and then renamed: an interruption leaves
complete entries and perhaps a `.partial` file, which a later run removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.arrays import read_arrays
from dsaml_jax.runtime.files import PARTIAL, PREPARED_REMEDY, atomic_write

KINDS = ("log_mel", "embedding")
_ABANDONED_S = 600  # a file that is being written is extended more often than this
_REMEDY = "delete it and prepare the data set again"


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


class Writer:
    """Adds arrays to an entry; see `writing`."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive

    def add(self, name: str, array: np.ndarray | np.generic) -> None:
        """Adds an array."""
        with self._member(name) as member:
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    def add_parts(self, name: str, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
        """Adds a float32 array, part by part along its first axis, as the parts are computed."""
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with self._member(name) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for part in parts:
                member.write(part.astype("<f4").tobytes())

    def _member(self, name: str) -> IO[bytes]:
        return self._archive.open(f"{name}.npy", "w", force_zip64=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Opens an entry, an `.npz` file, for writing; it appears, with its key, once it is complete.

    The same arrays give the same bytes.

    Raises:
      CannotWrite: The folder cannot be written, or the disk is full.
    """
    with atomic_write(path, PREPARED_REMEDY) as file, zipfile.ZipFile(file, "w") as archive:
        writer = Writer(archive)
        writer.add("key", np.array(path.stem))
        yield writer


def write(path: Path, **arrays: np.ndarray | np.generic) -> None:
    """Writes an entry atomically; raises CannotWrite as `writing` does."""
    with writing(path) as entry:
        for name, array in arrays.items():
            entry.add(name, array)


def read(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Returns the arrays of an entry with the given names.

    Raises:
      UserError: The entry does not exist, is damaged, or is another one under this name.
    """
    arrays = read_arrays(path, "key", *names, remedy=_REMEDY)
    key = str(arrays.pop("key"))
    if key != path.stem:
        raise UserError(f"{path} is the entry {key[:80]!r} under another name; {_REMEDY}.")
    return arrays


def is_whole(path: Path) -> bool:
    """Returns whether an entry exists and is not truncated, by the directory at its end."""
    try:
        with zipfile.ZipFile(path) as entry:
            return bool(entry.namelist())
    except Exception:  # a damaged archive can raise nearly any exception
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
