"""Reading of `.npz` files that may be damaged or malicious; their stated sizes are not trusted."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from dsaml_jax.errors import UserError

_BLOCK = 2**24  # bytes read at once


def read_arrays(path: str | Path, *names: str, remedy: str) -> dict[str, np.ndarray]:
    """Returns arrays that `np.savez` wrote: those with the given names, or all.

    Needs memory in proportion to the size of the file, executes nothing in it, and verifies
    checksums.

    Args:
      path: Path of the file.
      names: Names of the arrays to read; none for all.
      remedy: What the user can do if the file cannot be read, for the message.

    Raises:
      UserError: The file or an array does not exist, is damaged or compressed, holds objects, or
        states a size that it does not have.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
                raise ValueError("compressed, or its arrays overlap")
            return {name: _array(archive, entries[name]) for name in names or entries}
    except KeyError as error:
        raise UserError(f"{path} has no array {error}; {remedy}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {remedy}.") from error
    # A damaged archive can raise nearly any exception; none of them is our bug.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason}); {remedy}.") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(member)
        else:
            shape, columns_first, dtype = np.lib.format.read_array_header_2_0(member)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        size, stated = entry.file_size - member.tell(), math.prod(shape) * dtype.itemsize
        if size != stated:
            raise ValueError(f"{size} bytes where shape {shape} of {dtype} was stated")
        content, filled = bytearray(size), 0
        while part := member.read(_BLOCK):  # the checksum is verified at the end
            content[filled : filled + len(part)] = part
            filled += len(part)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if columns_first else "C")
