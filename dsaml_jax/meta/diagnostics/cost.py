"""What a compiled function costs: time, and the memory it needs besides its arguments."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax


class Cost(NamedTuple):
    """Attributes:
    temp_bytes: the compiler's account of temporary memory at its peak.
    seconds: median time of a call; compiling is not counted.
    """

    temp_bytes: int
    seconds: float


class Measured(NamedTuple):
    """Attributes: cost: of a call; result: of the last one."""

    cost: Cost
    result: Any


def measure(
    functions: Mapping[str, Callable], arguments: Mapping[str, Sequence[Any]], repeats: int
) -> dict[str, Measured]:
    """The cost of each function of its arguments, and what it gives.

    They are called in turns, `repeats` times after a first call that is not counted, so that a
    machine that is busy for a while is so for all of them.
    """
    compiled = {name: jax.jit(f).lower(*arguments[name]).compile() for name, f in functions.items()}
    seconds, results = {name: [] for name in functions}, {}
    for turn in range(repeats + 1):
        for name, function in compiled.items():
            start = time.perf_counter()
            results[name] = jax.block_until_ready(function(*arguments[name]))
            if turn:
                seconds[name].append(time.perf_counter() - start)
    memory = {name: f.memory_analysis().temp_size_in_bytes for name, f in compiled.items()}
    return {
        name: Measured(Cost(memory[name], statistics.median(seconds[name])), results[name])
        for name in functions
    }
