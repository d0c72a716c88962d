"""How audio becomes images: rates, windows, bands and segments."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from dsaml_jax.constraints import OneOf, Positive, PositiveFloat, Range, check_fields
from dsaml_jax.errors import UserError

WEIGHTLESS = ("statistics", "descriptors")
"""Embeddings that are computed from the sound without weights."""

EMBEDDINGS = (*WEIGHTLESS, "imagebind", "imagebind_as_released")


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """Sizes of the input features; the defaults are those of the released model."""

    # Hz; audio of another rate is resampled to it.
    sample_rate: Annotated[int, Range(low=8_000, high=192_000)] = 44_100
    # Length of the Hann window and of the FFT, in seconds.
    window_s: PositiveFloat = 0.06
    # Step from frame to frame, in seconds.
    hop_s: PositiveFloat = 0.01
    # HTK-scale mel triangles from 0 Hz to half the sample rate, not normalized.
    mel_bands: Positive = 128
    # Added to the mel power before the natural logarithm; the power of full scale is near 1000.
    floor: Annotated[float, Range(low=1e-30, high=1.0)] = 1e-6
    # Length of a segment in seconds: the interval between two ratings.
    segment_s: PositiveFloat = 0.5
    # Segments S in a clip; at most an hour.
    segments: Annotated[int, Range(low=1, high=7200)] = 60
    # The global embedding: of S segments "statistics" (needs no weights), "imagebind" by its
    # published recipe (audio at 16 kHz), or "imagebind_as_released", as DSAML's release feeds it
    # (44.1 kHz); of each segment and what is heard around it, "descriptors" (needs no weights).
    embedding: Annotated[str, OneOf(EMBEDDINGS)] = "statistics"
    # Segments from one embedded window to the next, in songs longer than S segments; "descriptors"
    # embed every segment.
    embedding_hop: Positive = 10

    def __post_init__(self):
        check_fields(self, "audio")
        for name in ("window_s", "hop_s", "segment_s"):
            samples = self.sample_rate * getattr(self, name)
            if samples < 1 or abs(samples - round(samples)) > 1e-6:
                raise UserError(
                    f"audio.{name} = {getattr(self, name)} is {samples:g} samples at "
                    f"audio.sample_rate = {self.sample_rate}; choose a whole number of at least 1."
                )
        for name in ("window_s", "segment_s"):
            if self.hop_s > getattr(self, name):
                raise UserError(
                    f"audio.hop_s is {self.hop_s}; expected at most audio.{name} = "
                    f"{getattr(self, name)}, so that no sound is skipped between frames."
                )
        if self.window > 2 * self.segment_samples:
            raise UserError(
                f"audio.window_s is {self.window_s}; expected at most two segments, "
                f"{2 * self.segment_s} s, which is as far as reflection can pad."
            )
        if self.mel_bands > self.most_mel_bands:
            raise UserError(
                f"audio.mel_bands is {self.mel_bands}; with bins of {1 / self.window_s:.3g} Hz "
                f"(1 / audio.window_s) the lowest bands would be empty: expected at most "
                f"{self.most_mel_bands}."
            )

    @property
    def most_mel_bands(self) -> int:
        """Largest number of mel bands of which each contains a bin of the FFT.

        Bands widen with frequency, so the lowest decides: it ends two mel steps above 0 Hz, which
        must lie above the first bin, 1 / window_s.
        """
        top, first = (_mel(hz) for hz in (self.sample_rate / 2, 1 / self.window_s))
        return max(math.ceil(2 * top / first) - 2, 1)

    @property
    def embedding_per_segment(self) -> bool:
        """Whether a clip's embedding is [S, G], one row per segment, instead of [G]."""
        return self.embedding == "descriptors"

    @property
    def window(self) -> int:
        """Window and FFT length in samples."""
        return round(self.sample_rate * self.window_s)

    @property
    def hop(self) -> int:
        """Hop in samples."""
        return round(self.sample_rate * self.hop_s)

    @property
    def segment_samples(self) -> int:
        """Samples in a segment."""
        return round(self.sample_rate * self.segment_s)

    @property
    def image(self) -> tuple[int, int]:
        """(T, F): frames and bands of a segment's log-mel image."""
        return 1 + self.segment_samples // self.hop, self.mel_bands


def _mel(hz: float) -> float:
    """Converts a frequency to the HTK mel scale."""
    return 2595 * math.log10(1 + hz / 700)
