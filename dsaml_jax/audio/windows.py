"""Sound in blocks: resampled, and cut into windows, without holding the whole of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import librosa
import numpy as np
import soxr


def resampled(blocks: Iterable[np.ndarray], rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Yields the sound at another rate (soxr, high quality).

    The samples are those of `librosa.resample` of the whole sound, to the bit.

    Args:
      blocks: Blocks [samples] float32, mono.
      rate: Their sample rate in Hz.
      target_rate: That of the result.
    """
    if rate == target_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="soxr_hq")
    count = made = 0
    for block in blocks:
        count += len(block)
        part = stream.resample_chunk(block)
        made += len(part)
        yield part
    length = math.ceil(count * (float(target_rate) / rate))
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield librosa.util.fix_length(rest, size=max(length - made, 0))


def windows(
    blocks: Iterable[np.ndarray], starts: Sequence[int] | np.ndarray, length: int
) -> Iterator[np.ndarray]:
    """Yields the samples [start, start + length) for each start, with silence after the end.

    The blocks are always read to their end. In memory are one window and what follows it in the
    block in which it ends.

    Args:
      blocks: Blocks [samples] float32.
      starts: First samples of the windows, in ascending order.
      length: Samples in a window.
    """
    blocks = iter(blocks)
    held: list[np.ndarray] = []
    first = end = 0  # `held` has the samples [first, end)
    for start in starts:
        while end < start + length and (block := next(blocks, None)) is not None:
            end += len(block)
            if end > start:
                held.append(block)
        sound = np.concatenate([np.zeros(0, np.float32), *held])
        first = end - len(sound)
        window = sound[max(start - first, 0) : start - first + length]
        held = [sound[max(start - first, 0) :]]
        yield window if len(window) == length else librosa.util.fix_length(window, size=length)
    for _ in blocks:
        pass
