"""Log-mel images of half-second segments, the model's local input."""

from __future__ import annotations

import functools

import librosa
import numpy as np

from dsaml_jax.audio.config import AudioConfig

CHUNK = 60
"""Segments whose images are computed at once; another number may change the last bits."""


def cut_segments(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Cuts [samples] into whole segments [S, segment samples]; a remainder is dropped."""
    size = config.segment_samples
    count = len(waveform) // size
    return waveform[: count * size].reshape(count, size)


def log_mel(segments: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Returns ln(mel power + floor) of each segment, [S, samples] -> [S, T, F] float32.

    The STFT is computed within each segment: periodic Hann window, centered frames, reflect
    padding, power spectrum; then HTK-scale mel triangles without normalization. Source: the
    released code of Zhang et al., AAAI 2025.

    Memory beyond the result does not grow with S: segments are computed `CHUNK` at a time.
    """
    images = np.empty((len(segments), *config.image), np.float32)
    for start in range(0, len(segments), CHUNK):
        chunk = slice(start, start + CHUNK)
        images[chunk] = _log_mel(segments[chunk], config)
    return images


def _log_mel(segments: np.ndarray, config: AudioConfig) -> np.ndarray:
    spectrum = librosa.stft(
        segments.astype(np.float32),
        n_fft=config.window,
        hop_length=config.hop,
        window="hann",
        center=True,
        pad_mode="reflect",
    )
    power = np.real(spectrum) ** 2 + np.imag(spectrum) ** 2
    mel = np.einsum("fk,skt->stf", mel_filters(config), power, optimize=True)
    return np.log(mel + np.float32(config.floor))


def silent(log_mel_STF: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Returns [S] bool: whether the mel power of a segment stays below the floor throughout."""
    return log_mel_STF.max(axis=(1, 2)) < np.log(2 * config.floor)


@functools.lru_cache(maxsize=8)
def mel_filters(config: AudioConfig) -> np.ndarray:
    """Returns [F, FFT bins] triangles on the HTK mel scale from 0 Hz to half the sample rate."""
    return librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.window,
        n_mels=config.mel_bands,
        fmin=0.0,
        fmax=config.sample_rate / 2,
        htk=True,
        norm=None,
    )
