"""The model's two inputs, computed from a song's sound."""

from __future__ import annotations

import math
from typing import NamedTuple

import librosa
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.imagebind import IMAGEBIND_HUGE
from dsaml_jax.audio.imagebind_input import AS_RELEASED, PUBLISHED, ImageBindRecipe, select_clips
from dsaml_jax.audio.log_mel import cut_segments, log_mel
from dsaml_jax.audio.statistics import clip_statistics, statistics_size
from dsaml_jax.errors import UserError

RECIPES: dict[str, ImageBindRecipe] = {
    "imagebind": PUBLISHED,
    "imagebind_as_released": AS_RELEASED,
}
"""The input recipe of ImageBind's tower, by `AudioConfig.embedding`."""


class Features(NamedTuple):
    """The inputs of one clip: `log_mel` [S, T, F] and `embedding` [G], float32."""

    log_mel: np.ndarray
    embedding: np.ndarray


class SongFeatures(NamedTuple):
    """The inputs of one song over its rated span of n segments, n >= S.

    The span begins with the ratings and ends with the longest of them, but has at least S segments.
    If the sound ends before the span, silence is appended.

    Attributes:
      log_mel: [n, T, F] float32, the image of each segment.
      embeddings: [m, G] float32, global embeddings of windows of S segments.
      starts: [m] int, the first segment of each window; see `window_starts`.
    """

    log_mel: np.ndarray
    embeddings: np.ndarray
    starts: np.ndarray


def embedding_size(config: AudioConfig) -> int:
    """Returns G, the width of the global embedding chosen by the config."""
    return IMAGEBIND_HUGE.output if config.embedding in RECIPES else statistics_size(config)


def window_starts(segments: int, config: AudioConfig) -> np.ndarray:
    """Returns [m] the first segments of the embedded windows of a song of n segments.

    These are 0, then every `embedding_hop` segments, and the last whole window; only 0 if n <= S.
    """
    last = max(segments - config.segments, 0)
    return np.unique(np.append(np.arange(0, last, config.embedding_hop), last))


def resampled(waveform: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Resamples to [samples] float32 (soxr, high quality); int16 is scaled to [-1, 1]."""
    if waveform.dtype == np.int16:
        waveform = waveform.astype(np.float32) / 32_768
    if sample_rate != target_rate:
        waveform = librosa.resample(waveform, orig_sr=sample_rate, target_sr=target_rate)
    return waveform


def cut_span(waveform: np.ndarray, sample_rate: int, start_s: float, length_s: float) -> np.ndarray:
    """Returns the samples of a span, padded with silence after the end of the sound.

    Raises:
      UserError: The start is negative or not finite.
    """
    if not 0 <= start_s < math.inf:
        raise UserError(f"the span begins at {start_s:g} s; expected a time of 0 s or later.")
    start, length = round(start_s * sample_rate), round(length_s * sample_rate)
    span = waveform[start : start + length]
    return span if len(span) == length else np.pad(span, (0, length - len(span)))


def song_log_mel(
    waveform: np.ndarray, sample_rate: int, start_s: float, segments: int, config: AudioConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the span's samples at the config's rate, and its log-mel images [n, T, F].

    Args:
      waveform: [samples], mono; int16, or float in [-1, 1].
      sample_rate: Rate of the waveform in Hz; resampled to the config's if it differs.
      start_s: Start of the first segment in seconds.
      segments: n, the number of segments.
      config: Sizes of the features.
    """
    rate = config.sample_rate
    sound = resampled(waveform, sample_rate, rate)
    span = cut_span(sound, rate, start_s, segments * config.segment_samples / rate)
    return span, log_mel(cut_segments(span, config), config)


def statistics_embeddings(
    span: np.ndarray, log_mel_nTF: np.ndarray, config: AudioConfig
) -> np.ndarray:
    """Returns [m, G] statistics of each window of a span of n >= S segments."""
    size, length = config.segment_samples, config.segments
    return np.stack(
        [
            clip_statistics(
                span[start * size : (start + length) * size],
                log_mel_nTF[start : start + length],
                config,
            )
            for start in window_starts(len(log_mel_nTF), config)
        ]
    )


def tower_clips(
    waveform: np.ndarray, sample_rate: int, start_s: float, segments: int, config: AudioConfig
) -> np.ndarray:
    """Returns the inputs of ImageBind's tower for each window: [m, clips, clip samples].

    The arguments are those of `song_log_mel`; the sound is resampled to the recipe's rate.
    """
    recipe = RECIPES[config.embedding]
    sound = resampled(waveform, sample_rate, recipe.sample_rate)
    length_s = config.segments * config.segment_s
    return np.stack(
        [
            select_clips(
                cut_span(sound, recipe.sample_rate, start_s + first * config.segment_s, length_s),
                recipe,
            )
            for first in window_starts(segments, config)
        ]
    )


def clip_features(
    waveform: np.ndarray, sample_rate: int, start_s: float, config: AudioConfig
) -> Features:
    """Returns the features of the S segments from `start_s` on, with statistics as the embedding.

    The arguments are those of `song_log_mel`.
    """
    span, images = song_log_mel(waveform, sample_rate, start_s, config.segments, config)
    return Features(images, statistics_embeddings(span, images, config)[0])
