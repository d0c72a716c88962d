"""Sound that arrives in blocks of any size, cut into segments at the model's sample rate."""

from __future__ import annotations

import numpy as np
import soxr

from dsaml_jax.audio.decoding import LOUDEST
from dsaml_jax.errors import UserError

RATES = (8_000, 192_000)
"""Sample rates in Hz that are accepted."""


class SegmentStream:
    """Turns blocks of sound into segments, as `audio.windows.resampled` and cutting would.

    Args:
      sample_rate: of the blocks, in Hz.
      target_rate: of the segments, in Hz.
      size: samples in a segment.

    Raises:
      UserError: the sample rate is out of range.
    """

    def __init__(self, sample_rate: int, target_rate: int, size: int):
        if not RATES[0] <= sample_rate <= RATES[1]:
            raise UserError(
                f"The sample rate is {sample_rate} Hz; expected {RATES[0]} to {RATES[1]} Hz."
            )
        self._rates, self._size = (sample_rate, target_rate), size
        self._resampler = None
        if sample_rate != target_rate:
            self._resampler = soxr.ResampleStream(
                sample_rate, target_rate, 1, dtype="float32", quality="soxr_hq"
            )
        self._held = np.zeros(0, np.float32)
        self._heard = self._made = 0

    def push(self, block: np.ndarray) -> list[np.ndarray]:
        """Returns the segments [size] float32 that a block completes.

        Args:
          block: [samples], or [samples, channels], which are averaged; floats with full scale 1, or
            int16. It may be empty.

        Raises:
          UserError: the block has another shape or type, or samples that are not finite or absurdly
            loud.
        """
        mono = _mono(block)
        self._heard += len(mono)
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono)
        return self._cut(mono)

    def finish(self) -> list[np.ndarray]:
        """Returns the segments that are left at the end; silence fills the last one up."""
        rest = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
            rate, target_rate = self._rates
            rest = rest[: -(-self._heard * target_rate // rate) - self._made]
        segments = self._cut(rest)
        if len(self._held):
            segments += self._cut(np.zeros(self._size - len(self._held), np.float32))
        return segments

    def _cut(self, samples: np.ndarray) -> list[np.ndarray]:
        self._made += len(samples)
        self._held = np.concatenate([self._held, samples])
        count = len(self._held) // self._size
        segments = list(self._held[: count * self._size].reshape(count, self._size))
        self._held = self._held[count * self._size :].copy()
        return segments


def _mono(block: np.ndarray) -> np.ndarray:
    block = np.asarray(block)
    if block.ndim not in (1, 2) or not (block.dtype.kind == "f" or block.dtype == np.int16):
        raise UserError(
            f"A block of sound has shape {block.shape} and type {block.dtype}; expected floats or "
            "int16 of shape [samples] or [samples, channels]."
        )
    if block.ndim == 2 and block.shape[1] == 0:
        raise UserError("A block of sound has no channel; expected one or more.")
    scale = 32_768 if block.dtype == np.int16 else 1
    mono = block.astype(np.float32) / scale
    if mono.ndim == 2:
        mono = mono.mean(axis=1)
    peak = float(np.abs(mono).max(initial=0.0))  # NaN if any sample is
    if not peak <= LOUDEST:
        raise UserError(
            f"A block of sound contains a sample of {peak:.3g}; expected finite samples of at most "
            f"{LOUDEST:g}, where 1 is full scale."
        )
    return mono
