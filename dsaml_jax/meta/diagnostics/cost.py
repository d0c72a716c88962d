"""The cost of a compiled function: its run time and temporary memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax


class Cost(NamedTuple):
    """The cost of a compiled function.

    Attributes:
      temp_bytes: peak temporary memory as computed by the compiler, without arguments, in bytes.
      seconds: median time of a call in seconds, without compilation.
    """

    temp_bytes: int
    seconds: float


class Measured(NamedTuple):
    """A measured function.

    Attributes:
      cost: cost of a call.
      result: result of the last call.
    """

    cost: Cost
    result: Any


def measure(
    functions: Mapping[str, Callable], arguments: Mapping[str, Sequence[Any]], repeats: int
) -> dict[str, Measured]:
    """Measures each function on its arguments.

    After an untimed call of each function, rounds of one call of each are timed `repeats` times, so
    that other load on the machine affects all functions alike.

    Args:
      functions: functions of arrays by name; they are compiled here.
      arguments: positional arguments by name of the function.
      repeats: number of timed calls of each function.
    """
    compiled = {name: jax.jit(f).lower(*arguments[name]).compile() for name, f in functions.items()}
    seconds, results = {name: [] for name in functions}, {}
    for turn in range(repeats + 1):
        for name, function in compiled.items():
            start = time.perf_counter()
            results[name] = jax.block_until_ready(function(*arguments[name]))
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: Measured(
            Cost(_temp_bytes(compiled[name]), statistics.median(seconds[name])), results[name]
        )
        for name in functions
    }


def _temp_bytes(compiled: jax.stages.Compiled) -> int:
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this backend does not report the memory of compiled functions")
    return memory.temp_size_in_bytes
