"""Reading of the pickle inside a file of `torch.save`, without calling what it names.

A pickle is a program for a stack machine; it may call anything that it can name, and ask for any
amount of memory. The machine in this module has only the instructions that containers of tensors
need: names are looked up in a short list of stand-ins that record a call, and no instruction
allocates more than the pickle holds (the memo is a dictionary, and only shapes are copied).
"""

from __future__ import annotations

import collections
import pickle
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dsaml_jax.errors import UserError

PLAIN = (type(None), bool, int, float, str, bytes)
"""Types that a pickle may hold besides tensors and containers."""

_MAX_AXES = 32  # as in NumPy 1

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


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_ignored: Any
) -> SavedTensor:
    if not isinstance(storage, SavedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return SavedTensor(storage, offset, _size(size), _size(stride))


def _rebuild_parameter(data: Any, *_ignored: Any) -> Any:
    return data


def _size(values: Any) -> tuple[int, ...]:
    short = isinstance(values, tuple | list) and len(values) <= _MAX_AXES
    if not short or not all(isinstance(number, int) for number in values):
        raise pickle.UnpicklingError(f"a shape that is not at most {_MAX_AXES} integers")
    return tuple(values)


_CALLED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
_ALLOWED: dict[tuple[str, str], Any] = _CALLED | {
    (module, name): _StorageType(dtype)
    for name, dtype in _DTYPES.items()
    for module in ("torch", "torch.cuda")
}


class _Mark:
    """The start of the entries that an instruction collects."""


_MARK = _Mark()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_TEXT = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_LITERALS = frozenset((*_CONSTANTS, *_NUMBERS, *_TEXT, *_BYTES))
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_FIXED_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, path: Path):
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Follows the instructions to the last one, and returns the object that they build."""
        for instruction, argument, _ in pickletools.genops(data):
            self._follow(instruction.name, argument)
        return self._pop()

    def _follow(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(_CONSTANTS.get(name, argument))
            return
        if name in _PUT:
            self._memo[argument] = self._top()
            return
        if name in _GET:
            self._stack.append(self._memo[argument])
            return
        if name in _FIXED_TUPLES:
            count = _FIXED_TUPLES[name]
            values = [self._pop() for _ in range(count)]
            self._stack.append(tuple(reversed(values)))
            return
        match name:
            case "PROTO" if argument <= pickle.HIGHEST_PROTOCOL:
                pass
            case "FRAME" | "STOP":
                pass
            case "MARK":
                self._stack.append(_MARK)
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "EMPTY_DICT":
                self._stack.append({})
            case "EMPTY_LIST":
                self._stack.append([])
            case "DICT":
                self._stack.append(_update({}, self._collect()))
            case "LIST":
                self._stack.append(self._collect())
            case "TUPLE":
                self._stack.append(tuple(self._collect()))
            case "SETITEM":
                value, key = self._pop(), self._pop()
                _update(self._top(), [key, value])
            case "SETITEMS":
                entries = self._collect()
                _update(self._top(), entries)
            case "APPEND":
                entries = [self._pop()]
                _extend(self._top(), entries)
            case "APPENDS":
                entries = self._collect()
                _extend(self._top(), entries)
            case "GLOBAL":
                self._stack.append(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                self._stack.append(self._named(module, attribute))
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                self._stack.append(_call(function, arguments))
            case "BUILD":
                # The state of an OrderedDict: attributes such as `_metadata`, which say nothing
                # about weights.
                self._pop()
                if not isinstance(self._top(), collections.OrderedDict):
                    raise pickle.UnpicklingError("a state for an object that takes none")
            case "BINPERSID":
                self._stack.append(_storage(self._pop()))
            case _:
                raise pickle.UnpicklingError(f"the instruction {name}, which weights do not need")

    def _top(self) -> Any:
        value = self._stack[-1]
        if value is _MARK:
            raise pickle.UnpicklingError("an instruction without its operand")
        return value

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        return value

    def _collect(self) -> list[Any]:
        """Pops the entries above the last mark, and the mark."""
        entries = []
        while (entry := self._stack.pop()) is not _MARK:
            entries.append(entry)
        return entries[::-1]

    def _named(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name that is not text")
        if (module, name) not in _ALLOWED:
            shown = ascii(f"{module}.{name}"[:100])[1:-1]
            raise UserError(
                f"{self._path}: refused, because it refers to {shown} and only plain "
                "tensors in dictionaries are allowed; save the model's state_dict() by itself."
            )
        return _ALLOWED[module, name]


def _update(target: Any, entries: list[Any]) -> Any:
    if not isinstance(target, dict) or len(entries) % 2:
        raise pickle.UnpicklingError("an entry for something that is not a dictionary")
    for key, value in zip(entries[::2], entries[1::2], strict=True):
        # Hashing nested tuples, or comparing large integers with equal hashes, may take forever.
        if not isinstance(key, PLAIN) or (isinstance(key, int) and abs(key) >= 2**63):
            raise pickle.UnpicklingError("a key that is neither text nor a number of 64 bits")
        target[key] = value
    return target


def _extend(target: Any, entries: list[Any]) -> None:
    if type(target) is not list:
        raise pickle.UnpicklingError("an element for something that is not a list")
    target.extend(entries)


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(arguments, tuple) or function not in _CALLED.values():
        raise pickle.UnpicklingError("a call of something that is not a function")
    if function is collections.OrderedDict and arguments:
        raise pickle.UnpicklingError("an OrderedDict with arguments")
    return function(*arguments)


def _storage(pid: Any) -> SavedStorage:
    kind, storage_type, key, _location, length = pid
    if kind != "storage" or not isinstance(storage_type, _StorageType):
        raise pickle.UnpicklingError("a persistent id that does not name a storage")
    if not isinstance(key, str) or not isinstance(length, int):
        raise pickle.UnpicklingError("a storage without a key or a length")
    return SavedStorage(storage_type.dtype, key, length)


def load(data: bytes, path: Path) -> Any:
    """Returns the pickled object, with a `SavedTensor` for every tensor.

    Args:
      data: The content of `data.pkl`.
      path: Path of the archive, for the error message.

    Raises:
      UserError: The pickle refers to anything but plain tensors.
      Exception: The pickle is damaged; nearly any type is possible.
    """
    return _Machine(path).run(data)
