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


def costs(
    functions: Mapping[str, Callable], arguments: Sequence[Any], repeats: int
) -> dict[str, Cost]:
    """The cost of each function of `arguments`.

    They are called in turns, `repeats` times after a first call that is not counted, so that a
    machine that is busy for a while is so for all of them.
    """
    compiled = {name: jax.jit(f).lower(*arguments).compile() for name, f in functions.items()}
    seconds = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: Cost(
            compiled[name].memory_analysis().temp_size_in_bytes, statistics.median(seconds[name])
        )
        for name in functions
    }
