"""Writes files in the format of `torch.save` without torch, one opcode at a time."""

from __future__ import annotations

import dataclasses
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of the storage `key`: strides and offset in elements."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    parameter: bool = False


@dataclasses.dataclass(frozen=True)
class Call:
    """A hostile pickle's call of MODULE.NAME on arguments while it is read."""

    module: str
    name: str
    arguments: tuple[Any, ...]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def opcodes(value: Any, storages: dict[str, np.ndarray]) -> bytes:
    """Returns the pickle of `value`, protocol 2, without its first and last opcode."""

    def inner(entry: Any) -> bytes:
        return opcodes(entry, storages)

    match value:
        case Tensor(key, offset, shape, strides, parameter):
            storage = storages[key]
            identity = b"(" + inner("storage") + name("torch", STORAGES[storage.dtype.name])
            identity += inner(key) + inner("cpu") + inner(storage.size) + b"tQ"
            hooks = name("collections", "OrderedDict") + b")R"
            arguments = identity + inner(offset) + inner(shape) + inner(strides)
            built = name("torch._utils", "_rebuild_tensor_v2") + b"("
            built += arguments + inner(False) + hooks + b"tR"
            if parameter:
                rebuild = name("torch._utils", "_rebuild_parameter")
                built = rebuild + b"(" + built + inner(True) + hooks + b"tR"
            return built
        case Call(module, attribute, arguments):
            called = b"".join(inner(argument) for argument in arguments)
            return name(module, attribute) + b"(" + called + b"tR"
        case dict():
            pairs = b"".join(inner(key) + inner(entry) for key, entry in value.items())
            return name("collections", "OrderedDict") + b")R(" + pairs + b"u"
        case list():
            return b"](" + b"".join(inner(entry) for entry in value) + b"e"
        case _:
            return pickle.dumps(value, 2)[2:-1]


def write(
    path: Path, value: Any, storages: dict[str, np.ndarray], byteorder: str = "little"
) -> Path:
    """Writes `value`, whose tensors view `storages` (flat arrays), as torch.save would."""
    data = pickle.PROTO + b"\x02" + opcodes(value, storages) + pickle.STOP
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/data.pkl", data)
        archive.writestr("saved/byteorder", byteorder)
        for key, storage in storages.items():
            archive.writestr(f"saved/data/{key}", _bytes(storage, byteorder))
    return path


def write_state_dict(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes a dictionary of weights, each in a storage of its own."""
    storages = {str(i): np.ravel(array) for i, array in enumerate(arrays.values())}
    tensors = {
        key: Tensor(str(i), 0, array.shape, contiguous(array.shape))
        for i, (key, array) in enumerate(arrays.items())
    }
    return write(path, tensors, storages)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def _bytes(storage: np.ndarray, byteorder: str) -> bytes:
    if storage.dtype == ml_dtypes.bfloat16:
        storage = storage.view(np.uint16)
    return storage.astype(
        storage.dtype.newbyteorder({"little": "<", "big": ">"}[byteorder])
    ).tobytes()
