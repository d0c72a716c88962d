"""A global embedding that needs no weights: long-term statistics of a clip's sound.

It replaces the ImageBind embedding of the released model (1024 values of a frozen network),
characterizes the kind of song that a clip is from, and is projected to the model's width by a
learned layer.
"""

from __future__ import annotations

import librosa
import numpy as np

from dsaml_jax.audio.config import AudioConfig

CHROMA_BINS = 12
PULSE_LAGS_S = np.arange(0.2, 1.2001, 0.05)
"""Lags of the loudness autocorrelation in seconds: 300 down to 50 beats per minute."""


def statistics_size(config: AudioConfig) -> int:
    """Returns G, the number of values that `clip_statistics` returns."""
    return 3 * config.mel_bands + CHROMA_BINS + len(PULSE_LAGS_S)


def clip_statistics(
    waveform: np.ndarray, log_mel_STF: np.ndarray, config: AudioConfig
) -> np.ndarray:
    """Returns [G] float32 statistics of one clip, in this order:

    - mean over frames of each log-mel band: timbre, register and loudness;
    - standard deviation over frames of each band: dynamics;
    - mean absolute frame-to-frame change of each band: activity;
    - the chroma profile, 12 pitch classes that sum to 1 (tuning fixed at A = 440 Hz), ordered by
      fifths from the loudest class: mode, independent of the key;
    - autocorrelation of the frame-to-frame rise in loudness at `PULSE_LAGS_S`: pulse and tempo.

    Args:
      waveform: [samples] of the clip, mono, in [-1, 1].
      log_mel_STF: Its log-mel images.
      config: Sizes of the features.
    """
    frames = log_mel_STF[:, :-1].reshape(-1, log_mel_STF.shape[-1])
    steps = np.diff(log_mel_STF, axis=1)
    chroma = librosa.feature.chroma_stft(
        y=waveform, sr=config.sample_rate, n_fft=4096, hop_length=2048, tuning=0.0, norm=None
    ).sum(axis=1)
    fifths = chroma[7 * np.arange(CHROMA_BINS) % CHROMA_BINS]
    profile = np.roll(fifths, -int(np.argmax(fifths))) / max(float(fifths.sum()), 1e-12)
    rise = np.maximum(np.diff(frames.mean(axis=1)), 0.0)
    parts = [
        frames.mean(axis=0),
        frames.std(axis=0),
        np.abs(steps).mean(axis=(0, 1)),
        profile,
        _autocorrelation(rise, np.rint(PULSE_LAGS_S / config.hop_s).astype(int)),
    ]
    return np.concatenate(parts).astype(np.float32)


def _autocorrelation(signal: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Computes the normalized autocorrelation at whole lags; 0 if undefined."""
    centered = signal - signal.mean()
    power = float(centered @ centered)
    inside = [0 < lag < len(centered) for lag in lags]
    if power < 1e-12:
        return np.zeros(len(lags))
    return np.array(
        [
            float(centered[lag:] @ centered[:-lag]) / power if ok else 0.0
            for lag, ok in zip(lags, inside, strict=True)
        ]
    )
