"""Reading of weights written by `torch.save`, without PyTorch and without running pickled code.

Since PyTorch 1.6 such a file is an uncompressed zip archive: `NAME/data.pkl`, a pickle of the saved
object in which every tensor is a call of `torch._utils._rebuild_tensor_v2` on a storage named by
persistent id; `NAME/data/KEY`, the raw bytes of each storage; and `NAME/byteorder`. Format:
https://docs.pytorch.org/docs/stable/notes/serialization.html.

The pickle is read by `torch_pickle`, which refuses every name except those of plain tensors. Sizes
that the file states are not trusted: reading takes at most a small multiple of the file's own size.
(A tensor with a stride of 0 is a view that repeats its values.)
"""

from __future__ import annotations

import collections
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.errors import UserError
from dsaml_jax.interop.torch_pickle import PLAIN, SavedStorage, SavedTensor, load

_LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, 2)[:-1]  # PyTorch's magic number before 1.6


class _Archive:
    """The records of an open archive; each storage is read once, when it is first needed."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        self._archive = archive
        self._path = path
        # Two entries may share bytes, and an entry may claim more than there are.
        stored = [e for e in archive.infolist() if e.compress_type == zipfile.ZIP_STORED]
        claimed, size = sum(entry.file_size for entry in stored), path.stat().st_size
        if claimed > size:
            raise UserError(
                f"{path}: its records claim {claimed} bytes and the file has {size}; copy it again."
            )
        pickles = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if not pickles:
            raise UserError(
                f"{path}: a zip archive without data.pkl, so not a file written by torch.save."
            )
        # The outermost one if there are several.
        self._root = min(pickles, key=len).removesuffix("data.pkl")
        self._bytes: dict[tuple[str, int], np.ndarray] = {}  # by key and length of a swapped word
        order = self.record("byteorder") if self.has("byteorder") else b"little"
        if order not in (b"little", b"big"):
            raise UserError(
                f"{path}: its record byteorder says neither 'little' nor 'big'; copy it again."
            )
        self._swapped = order.decode() != sys.byteorder

    def has(self, name: str) -> bool:
        return self._root + name in self._archive.NameToInfo

    def record(self, name: str) -> bytes:
        if not self.has(name):
            raise UserError(f"{self._path}: its record {name} is missing; copy the file again.")
        info = self._archive.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(
                f"{self._path}: its record {name} is compressed, which torch.save never does; "
                "take the file as torch.save wrote it."
            )
        return self._archive.read(info)  # checks the record's CRC

    def array(self, tensor: SavedTensor) -> np.ndarray:
        storage, offset, shape, strides = tensor
        numbers = (offset, storage.length, *shape, *strides)
        if len(shape) != len(strides) or not all(
            isinstance(number, int) and number >= 0 for number in numbers
        ):
            raise UserError(f"{self._path}: a tensor's shape {shape} or strides {strides} is odd.")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.length:
            raise UserError(
                f"{self._path}: a tensor of shape {shape} reaches past the end of its storage "
                f"{storage.key} ({storage.length} values); copy or save the file again."
            )
        values = self._storage(storage)
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        steps = tuple(step * values.itemsize for step in strides)
        return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)

    def _storage(self, storage: SavedStorage) -> np.ndarray:
        """Returns the values of a storage in this machine's byte order."""
        size = storage.dtype.itemsize
        key = (storage.key, size if self._swapped else 1)
        if key not in self._bytes:
            raw = np.frombuffer(self.record(f"data/{storage.key}"), np.uint8)
            if self._swapped and len(raw) % size == 0:  # the length is checked below
                raw = np.flip(raw.reshape(-1, size), axis=1).ravel()
            self._bytes[key] = raw
        raw = self._bytes[key]
        if len(raw) != storage.length * size:
            raise UserError(
                f"{self._path}: storage {storage.key} holds {len(raw)} bytes where "
                f"{storage.length * size} were expected; copy or save the file again."
            )
        return raw.view(storage.dtype)


def read_torch_file(path: str | Path, keep: Callable[[str], bool] | None = None) -> dict[Any, Any]:
    """Returns what `torch.save` wrote to `path`, with every tensor as a NumPy array.

    Dictionaries, lists, tuples, numbers and strings keep their nesting. Arrays are read-only;
    tensors that share a storage share memory. bfloat16 is returned as `ml_dtypes.bfloat16`.
    Checksums are verified.

    Args:
      path: A `.pt` or `.pth` file in PyTorch's zip format (1.6 and later).
      keep: Called with the key of each tensor in the dictionary that contains it. If it returns
        False, the tensor is omitted and its bytes are never read.

    Raises:
      UserError: The file does not exist, was not written by torch.save, has the format before
        PyTorch 1.6, is damaged or incomplete, or its pickle refers to anything but plain tensors.
    """
    path = Path(path)
    _check_start(path)
    try:
        with zipfile.ZipFile(path) as zip_file:
            archive = _Archive(zip_file, path)
            saved = load(archive.record("data.pkl"), path)
            contents = _resolve(saved, archive, keep or (lambda _: True), "", {})
    except UserError:
        raise
    # A damaged archive or pickle can raise nearly any exception; none of them is our bug.
    except Exception as error:
        raise UserError(
            f"{path}: damaged or cut short ({type(error).__name__}: {str(error)[:200]}); copy it "
            "again."
        ) from error
    if not isinstance(contents, dict):
        raise UserError(
            f"{path}: contains a {type(contents).__name__}; expected a dictionary of weights: save "
            "the model's state_dict()."
        )
    return contents


def pick_state_dict(
    contents: Mapping[Any, Any], path: str | Path, inside: str | None = None
) -> dict[str, np.ndarray]:
    """Returns the dictionary name -> array in the result of `read_torch_file`.

    Args:
      contents: Result of `read_torch_file`.
      path: Path of the file, for the error message.
      inside: Key of the dictionary, such as "state_dict"; None selects `contents` itself if it
        contains only arrays, else its only dictionary of arrays.

    Raises:
      UserError: The key does not exist, or there is not exactly one such dictionary.
    """
    if inside is not None:
        if not _is_state_dict(contents.get(inside)):
            raise UserError(
                f"{path}: contains no dictionary of weights under {inside!r}; its keys are "
                f"{_listed(contents)}."
            )
        return dict(contents[inside])
    if _is_state_dict(contents):
        return dict(contents)
    keys = [key for key, value in contents.items() if _is_state_dict(value)]
    if len(keys) != 1:
        raise UserError(
            f"{path}: expected one dictionary of weights and found {len(keys)}; its keys are "
            f"{_listed(contents)}: save the model's state_dict() by itself."
        )
    return dict(contents[keys[0]])


def _check_start(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_START))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as a file of weights ({error.strerror}); give the path of a "
            ".pt or .pth file."
        ) from error
    if start == _LEGACY_START:
        raise UserError(
            f"{path}: has PyTorch's format before 1.6, which is not supported; re-save it with "
            "torch.save(torch.load(OLD, map_location='cpu'), NEW) in PyTorch 1.6 or later."
        )
    if not start.startswith(b"PK"):
        raise UserError(f"{path}: not a file written by torch.save (no zip archive).")


def _resolve(
    value: Any, archive: _Archive, keep: Callable[[str], bool], key: str, done: dict[int, Any]
) -> Any:
    """Returns `value` with its tensors read; visits a container once, however often it occurs."""
    if isinstance(value, SavedTensor):
        return archive.array(value)
    if isinstance(value, PLAIN):
        return value
    if type(value) not in (dict, collections.OrderedDict, list, tuple):
        raise pickle.UnpicklingError("a value that is neither a tensor, a container nor plain")
    if id(value) in done:
        if done[id(value)] is None:
            raise pickle.UnpicklingError("a container that contains itself")
        return done[id(value)]
    done[id(value)] = None
    if isinstance(value, dict):
        result: Any = {
            name: _resolve(entry, archive, keep, str(name), done)
            for name, entry in value.items()
            if not isinstance(entry, SavedTensor) or keep(str(name))
        }
    else:
        entries = (e for e in value if not isinstance(e, SavedTensor) or keep(key))
        result = type(value)([_resolve(e, archive, keep, key, done) for e in entries])
    done[id(value)] = result
    return result


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and all(isinstance(entry, np.ndarray) for entry in value.values())
    )


def _listed(contents: Mapping[Any, Any]) -> str:
    names = [str(name) for name in contents]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "(none)"
