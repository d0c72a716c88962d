"""The model's two inputs, computed from a song's sound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import blocks_of
from dsaml_jax.audio.descriptors import SegmentDescriptors, descriptors_size
from dsaml_jax.audio.imagebind import IMAGEBIND_HUGE
from dsaml_jax.audio.imagebind_input import AS_RELEASED, PUBLISHED, ImageBindRecipe, select_clips
from dsaml_jax.audio.log_mel import CHUNK, cut_segments, log_mel
from dsaml_jax.audio.statistics import clip_statistics, statistics_size
from dsaml_jax.audio.windows import resampled, windows
from dsaml_jax.errors import UserError

RECIPES: dict[str, ImageBindRecipe] = {
    "imagebind": PUBLISHED,
    "imagebind_as_released": AS_RELEASED,
}
"""The input recipe of ImageBind's tower, by `AudioConfig.embedding`."""


class Features(NamedTuple):
    """The inputs of one clip: `log_mel` [S, T, F] and `embedding` [G] or [S, G], float32."""

    log_mel: np.ndarray
    embedding: np.ndarray


class SongFeatures(NamedTuple):
    """The inputs of one song over its rated span of n segments, n >= S.

    The span begins with the ratings and ends with the longest of them, but has at least S segments.
    If the sound ends before the span, silence is appended.

    Attributes:
      log_mel: [n, T, F] float32, the image of each segment.
      embeddings: [m, G] float32, global embeddings of windows of S segments; [n, G] if the config
        embeds every segment.
      starts: [m] int, the first segment that each row embeds; see `window_starts`.
    """

    log_mel: np.ndarray
    embeddings: np.ndarray
    starts: np.ndarray


def embedding_size(config: AudioConfig) -> int:
    """Returns G, the width of the global embedding chosen by the config."""
    if config.embedding_per_segment:
        return descriptors_size()
    return IMAGEBIND_HUGE.output if config.embedding in RECIPES else statistics_size(config)


def window_starts(segments: int, config: AudioConfig) -> np.ndarray:
    """Returns [m] the first segments that the embeddings of a song of n segments describe.

    These are 0 ... n - 1 if every segment is embedded. For windows of S segments, they are 0, then
    every `embedding_hop` segments, and the last whole window; only 0 if n <= S.
    """
    if config.embedding_per_segment:
        return np.arange(segments)
    last = max(segments - config.segments, 0)
    return np.unique(np.append(np.arange(0, last, config.embedding_hop), last))


def image_chunks(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    start_s: float,
    segments: int,
    config: AudioConfig,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the samples and the log-mel images [c, T, F] of a span, c <= `CHUNK` segments a time.

    The blocks are resampled and computed as they come, and are read to their end.

    Args:
      blocks: Blocks of the sound, [samples] float32, mono, full scale 1.
      sample_rate: Their rate in Hz; resampled to the config's if it differs.
      start_s: Start of the first segment in seconds.
      segments: n, the number of segments.
      config: Sizes of the features.

    Raises:
      UserError: The start is negative or not finite.
    """
    size = config.segment_samples
    firsts = np.arange(0, segments, CHUNK)
    starts = _sample(start_s, config.sample_rate) + firsts * size
    sound = resampled(blocks, sample_rate, config.sample_rate)
    for first, chunk in zip(firsts, windows(sound, starts, CHUNK * size), strict=True):
        samples = chunk[: (segments - first) * size]
        yield samples, log_mel(cut_segments(samples, config), config)


class Embedder(Protocol):
    """Computes embeddings that need no weights while the chunks of a span pass."""

    @property
    def rows(self) -> Sequence[np.ndarray] | np.ndarray:
        """The embeddings, [G] each, once all chunks have passed."""
        ...

    def through(self, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yields the images of chunks of samples and images."""
        ...


def make_embedder(segments: int, config: AudioConfig) -> Embedder | None:
    """Returns the embedder of a span of n >= S segments; None if the embedding needs weights."""
    if config.embedding_per_segment:
        return SegmentDescriptors(segments, config)
    return None if config.embedding in RECIPES else WindowStatistics(segments, config)


class WindowStatistics:
    """Statistics of each window of a span of n >= S segments, computed as its chunks pass.

    Attributes:
      rows: [G] float32 for each window so far.
    """

    def __init__(self, segments: int, config: AudioConfig):
        self.rows: list[np.ndarray] = []
        self._starts = window_starts(segments, config).tolist()
        self._config = config

    def through(self, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yields the images of the chunks; only those of unfinished windows are held."""
        size, length = self._config.segment_samples, self._config.segments
        samples, images = np.zeros(0, np.float32), np.zeros((0, *self._config.image), np.float32)
        first = 0  # segment at which `samples` and `images` begin
        for new_samples, new_images in chunks:
            samples = np.concatenate([samples, new_samples])
            images = np.concatenate([images, new_images])
            for start in self._starts[len(self.rows) :]:
                passed = min(start - first, len(images))
                samples, images, first = samples[passed * size :], images[passed:], first + passed
                if first + len(images) < start + length:
                    break
                clip = samples[: length * size], images[:length]
                self.rows.append(clip_statistics(*clip, self._config))
            yield new_images


def tower_clips(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    start_s: float,
    segments: int,
    config: AudioConfig,
) -> np.ndarray:
    """Returns the inputs of ImageBind's tower for each window: [m, clips, clip samples].

    The arguments are those of `image_chunks`; the sound is resampled to the recipe's rate.
    """
    recipe = RECIPES[config.embedding]
    rate = recipe.sample_rate
    seconds = start_s + config.segment_s * window_starts(segments, config)
    starts = [_sample(second, rate) for second in seconds.tolist()]
    length = round(config.segments * config.segment_s * rate)
    sound = resampled(blocks, sample_rate, rate)
    return np.stack([select_clips(window, recipe) for window in windows(sound, starts, length)])


def clip_features(
    waveform: np.ndarray, sample_rate: int, start_s: float, config: AudioConfig
) -> Features:
    """Returns the features of the S segments from `start_s` on.

    Args:
      waveform: [samples], mono; int16, or float in [-1, 1].
      sample_rate: Its rate in Hz.
      start_s: Start of the first segment in seconds.
      config: Sizes of the features; its embedding needs no weights.
    """
    segments = config.segments
    embedder = make_embedder(segments, config)
    assert embedder is not None, "ImageBind's tower is run on many songs at once"
    chunks = image_chunks(blocks_of(waveform), sample_rate, start_s, segments, config)
    images = np.concatenate([*embedder.through(chunks)])
    rows = np.stack([*embedder.rows])
    return Features(images, rows if config.embedding_per_segment else rows[0])


def _sample(start_s: float, rate: int) -> int:
    """Returns the sample at a time; raises UserError if it is negative or not finite."""
    if not 0 <= start_s < math.inf:
        raise UserError(f"the span begins at {start_s:g} s; expected a time of 0 s or later.")
    return round(start_s * rate)
