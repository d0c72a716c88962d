"""How sound becomes images: rates, windows, bands and segments."""

from __future__ import annotations

import dataclasses

from dsaml_jax.errors import UserError, at_least, one_of

EMBEDDINGS = ("statistics", "imagebind", "imagebind_as_released")


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """Sizes of the input features; the defaults are the released model's.

    Attributes:
      sample_rate: Hz; audio of another rate is resampled to it.
      window_s: length of the Hann window and of the FFT, in seconds.
      hop_s: step from frame to frame, in seconds.
      mel_bands: HTK-scale triangles from 0 Hz to half the sample rate, not normalized.
      floor: added to the mel power before the natural logarithm.
      segment_s: length of a segment, in seconds; the distance of two ratings.
      segments: S, segments in a clip.
      embedding: what the global embedding of S segments is, one of `EMBEDDINGS`: "statistics"
        (needs no weights), "imagebind" by its published recipe (audio at 16 kHz), or
        "imagebind_as_released", as DSAML's release feeds it (44.1 kHz).
      embedding_hop: segments from one embedded window of a song longer than S to the next.
    """

    sample_rate: int = 44_100
    window_s: float = 0.06
    hop_s: float = 0.01
    mel_bands: int = 128
    floor: float = 1e-6
    segment_s: float = 0.5
    segments: int = 60
    embedding: str = "statistics"
    embedding_hop: int = 10

    def __post_init__(self):
        for name in ("window_s", "hop_s", "segment_s"):
            samples = self.sample_rate * getattr(self, name)
            if samples < 1 or abs(samples - round(samples)) > 1e-6:
                raise UserError(
                    f"audio.{name} = {getattr(self, name)} is {samples:g} samples at "
                    f"audio.sample_rate = {self.sample_rate}; choose a whole number of at least 1."
                )
        if self.window > 2 * self.segment_samples:
            raise UserError("audio.window_s is longer than two segments; reflection cannot pad it.")
        one_of("audio.embedding", self.embedding, EMBEDDINGS)
        for name in ("mel_bands", "segments", "embedding_hop"):
            at_least(f"audio.{name}", getattr(self, name), 1)

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
