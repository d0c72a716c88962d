"""Reading of the pickle inside a file of `torch.save`, without calling what it names.

A pickle may call anything that it can name, so this unpickler resolves only the few names that
containers of tensors need, and maps them to stand-ins that record the call. All other names are
refused.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from dsaml_jax.errors import UserError

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


# What the pickle may build: tuples and objects without attributes, which the pickle's BUILD
# instruction cannot modify.
class _StorageType(NamedTuple):
    dtype: np.dtype


class SavedStorage(NamedTuple):
    """The raw values of one or more tensors, stored as a record of the archive."""

    dtype: np.dtype
    key: str
    length: int


class SavedTensor(NamedTuple):
    """A view of a storage, as described by the pickle."""

    storage: SavedStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements, as in PyTorch


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage, offset, size, stride, *_ignored):
        if not isinstance(storage, SavedStorage):
            raise pickle.UnpicklingError("a tensor without a storage")
        return SavedTensor(storage, offset, tuple(size), tuple(stride))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, data, *_ignored):
        return data


class _Size:
    __slots__ = ()

    def __call__(self, values):
        return tuple(values)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): _Size(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
} | {
    (module, name): _StorageType(dtype)
    for name, dtype in _DTYPES.items()
    for module in ("torch", "torch.cuda")
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path):
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(
                f"{self._path}: refused, because it refers to {module}.{name} and only plain "
                "tensors in dictionaries are allowed; save the model's state_dict() by itself."
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> SavedStorage:
        kind, storage_type, key, _location, length = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"an unknown persistent id {kind!r}")
        return SavedStorage(storage_type.dtype, str(key), int(length))


def load(file: IO[bytes], path: Path) -> Any:
    """Returns the pickled object, with a `SavedTensor` for every tensor.

    Args:
      file: The content of `data.pkl`.
      path: Path of the archive, for the error message.

    Raises:
      UserError: The pickle refers to anything but plain tensors.
      Exception: The pickle is damaged; nearly any type is possible.
    """
    return _Unpickler(file, path).load()
