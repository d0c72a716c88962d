"""From a song's sound to the model's two inputs."""

from __future__ import annotations

from typing import NamedTuple

import librosa
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.log_mel import cut_segments, log_mel
from dsaml_jax.audio.statistics import clip_statistics, statistics_size


class Features(NamedTuple):
    """The inputs of one clip: `log_mel` [S, T, F], `embedding` [G]; float32."""

    log_mel: np.ndarray
    embedding: np.ndarray


def embedding_size(config: AudioConfig) -> int:
    """G, the width of the global embedding that the config names."""
    return statistics_size(config)


def clip_features(
    waveform: np.ndarray, sample_rate: int, start_s: float, config: AudioConfig
) -> Features:
    """Features of the S segments from `start_s` on.

    Args:
      waveform: [samples], mono; int16, or float in [-1, 1].
      sample_rate: of the waveform, Hz; resampled to the config's where it differs.
      start_s: where the first segment starts, in seconds.

    Sound that ends before the clip does is followed by silence (ratings end there too).
    """
    if waveform.dtype == np.int16:
        waveform = waveform.astype(np.float32) / 32_768
    if sample_rate != config.sample_rate:
        waveform = librosa.resample(waveform, orig_sr=sample_rate, target_sr=config.sample_rate)
    start = round(start_s * config.sample_rate)
    clip = waveform[start : start + config.segments * config.segment_samples]
    clip = np.pad(clip, (0, config.segments * config.segment_samples - len(clip)))
    images = log_mel(cut_segments(clip, config), config)
    return Features(images, clip_statistics(clip, images, config))
