"""Music descriptors of each segment: a global embedding that needs no weights.

A segment is described by the sound in the seconds around it, and by the mean of the same
descriptors over half a minute. In this order, with D = `DESCRIPTORS` values:

| values | descriptor | of | source |
|---|---|---|---|
| 1 | loudness: ln of the power of a frame | the segment | Peeters 2004 |
| 2 | ln of the spectral centroid and spread, in kHz: brightness | the segment | Peeters 2004 |
| 1 | ln of the spectral flatness over mel bands: noisy or tonal | the segment | Peeters 2004 |
| 4 | onset strength of all, low, middle, and high bands, in nepers | the segment | Müller |
| 2 | its square root, and its pulses (see `_rhythm`) | the segment | - |
| 40 | autocorrelation of onset strength at `PULSE_LAGS_S`: tempogram | 6 s | Müller |
| 1 | ln of the strongest beat period in seconds | 6 s | - |
| 12 | log-compressed chroma, mean 1, from C | the segment | Müller |
| 12 | the same | 4.5 s | Müller |
| 3 | fit of the best major key, the best minor key, and their difference | 4.5 s | Krumhansl |
| 4 | mean and spread of pitch by magnitude, then by power, in semitones | the segment | - |
| 15 | ln of the relative power of thirds of an octave: register | the segment | - |

Sources: Peeters, A large set of audio features for sound description, 2004; Müller, Fundamentals of
Music Processing, 2015, chapters 3 and 6; Krumhansl, Cognitive Foundations of Musical Pitch, 1990.

Only loudness depends on the level of the recording: the others are relative to the mean power
within 3 s. All are computed at 16 kHz, whatever the rate of the sound, and are finite in silence.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import librosa
import numpy as np
from scipy.ndimage import uniform_filter1d

from dsaml_jax.audio.config import AudioConfig

RATE = 16_000
MEAN_REACH = 30
"""Segments on either side over which descriptors are averaged, as far as the span reaches."""

CONTEXT = 13
"""Segments on either side on whose sound the descriptors of a segment depend."""

_WINDOW, _HOP = 512, 160  # of timbre and rhythm: 32 ms and 10 ms
_PITCH_WINDOW, _PITCH_HOP = 2048, 800  # of pitch: 128 ms and 50 ms
_REACH_S = 3.0  # on either side, of tempo and of the mean level
_CHROMA_SEGMENTS = 9
_PIECE = 120  # segments computed at once

_BANDS = 40
_BAND_FLOOR = 1e-3  # of the mean power of a band within 3 s
_QUIET = 1e-6  # power of a frame; full scale has about 10,000
_PULSE = 0.4  # onset strength that counts as half a pulse
_BEAT_S = (0.25, 1.3)
_BEAT_SHARPNESS = 50.0
_COMPRESSION = 30.0
_PITCHES = (43, 103)  # MIDI numbers of the register's bands, 4 semitones each
_BAND_SEMITONES = 4

PULSE_LAGS_S = np.unique(np.geomspace(0.06, 1.3, 46).round(2))
DESCRIPTORS = 10 + len(PULSE_LAGS_S) + 1 + 12 + 12 + 3 + 4 + 15
"""D, the number of descriptors of a segment."""

# Probe-tone profiles of the keys C major and C minor (Krumhansl 1990, page 30).
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def descriptors_size() -> int:
    """Returns G = 2 D, the number of values of a segment."""
    return 2 * DESCRIPTORS


class SegmentDescriptors:
    """Descriptors of each segment of a span, and their mean around it, computed as chunks pass.

    The mean is over `MEAN_REACH` segments on either side, as far as the span reaches. Memory beyond
    the result does not grow with the span: `_PIECE` segments are computed at a time, with the sound
    around them that they depend on, so that they are those of the whole span up to rounding (1e-4
    of a standard deviation or less), and do not depend on the chunks.

    Args:
      segments: n, the length of the span.
      config: Its sample rate and length of a segment.
    """

    def __init__(self, segments: int, config: AudioConfig):
        self._segments, self._config = segments, config
        self._sound, self._first = np.zeros(0, np.float32), 0  # the sound from a segment on
        self._pieces: list[np.ndarray] = []

    @property
    def rows(self) -> np.ndarray:
        """The [n, 2 D] float32 descriptors, once all chunks have passed."""
        return with_long_means(np.concatenate(self._pieces))

    def through(self, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Yields the images of chunks of (samples, images) of whole segments."""
        for samples, images in chunks:
            self._sound = np.concatenate([self._sound, samples])
            self._describe()
            yield images

    def _describe(self) -> None:
        """Describes the pieces whose sound, and that around them, has passed."""
        size = self._config.segment_samples
        while (start := _PIECE * len(self._pieces)) < self._segments:
            end = min(start + _PIECE, self._segments)
            last = min(end + CONTEXT, self._segments)
            first = max(start - CONTEXT, 0)
            if self._first + len(self._sound) // size < last:
                return
            self._sound, self._first = self._sound[(first - self._first) * size :], first
            sound = self._sound[: (last - first) * size]
            if self._config.sample_rate != RATE:
                sound = librosa.resample(sound, orig_sr=self._config.sample_rate, target_sr=RATE)
            rows = describe_sound(sound, last - first)
            self._pieces.append(rows[start - first : end - first])


def with_long_means(rows: np.ndarray) -> np.ndarray:
    """Appends to descriptors [n, D] their means over `MEAN_REACH` segments: [n, 2 D] float32."""
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, 0, np.float64)])
    at = np.arange(len(rows))
    first, last = np.maximum(at - MEAN_REACH, 0), np.minimum(at + MEAN_REACH + 1, len(rows))
    means = (total[last] - total[first]) / (last - first)[:, None]
    return np.concatenate([rows, means], axis=1).astype(np.float32)


def describe_sound(sound: np.ndarray, segments: int) -> np.ndarray:
    """Returns [n, D] descriptors of the sound of n segments at `RATE`."""
    power = _power(sound, _WINDOW, _HOP)
    frames = len(sound) // _HOP // segments
    total = power.sum(1)
    level = _around(total, round(2 * _REACH_S * RATE / _HOP) + 1) + _QUIET
    bands = (power @ _filters().bands) * (_BANDS / level[:, None])
    log_bands = np.log(bands + np.float32(_BAND_FLOOR))
    parts = [
        _by_segment(_timbre(power, total, bands, log_bands), segments),
        *_rhythm(log_bands, segments, frames),
        *_pitch(_power(sound, _PITCH_WINDOW, _PITCH_HOP), segments),
    ]
    return np.concatenate(parts, axis=1)


def _timbre(
    power: np.ndarray, total: np.ndarray, bands: np.ndarray, log_bands: np.ndarray
) -> np.ndarray:
    """Returns [frames, 4]: loudness, centroid, spread and flatness."""
    moments = (power @ _filters().moments) / (total + _QUIET)[:, None]
    centroid = moments[:, 0]
    spread = np.sqrt(np.maximum(moments[:, 1] - centroid**2, 0))
    flatness = log_bands.mean(1) - np.log(bands.mean(1) + np.float32(_BAND_FLOOR))
    parts = [np.log(total + _QUIET), np.log(centroid + 0.05), np.log(spread + 0.05), flatness]
    return np.stack(parts, axis=1)


def _rhythm(log_bands: np.ndarray, segments: int, frames: int) -> list[np.ndarray]:
    """Returns onset strengths [n, 6], their autocorrelation [n, lags] and beat period [n, 1].

    Onset strength e is the mean over bands of the rise from frame to frame. Its pulses, the sum of
    the rises of e² / (e² + 0.4²), count notes without a threshold.
    """
    channels = [0, _BANDS // 3, 2 * _BANDS // 3, _BANDS]
    rise = np.maximum(np.diff(log_bands, axis=0, prepend=log_bands[:1]), 0)
    onsets = rise.mean(1)
    low, middle, high = (rise[:, a:b].mean(1) for a, b in itertools.pairwise(channels))
    saturated = onsets**2 / (onsets**2 + _PULSE**2)
    pulses = np.maximum(np.diff(saturated, prepend=saturated[:1]), 0)
    local = np.stack([onsets, low, middle, high, np.sqrt(onsets), pulses], axis=1)

    reach = round(_REACH_S * RATE / _HOP)
    centers = np.arange(segments) * frames + frames // 2

    def windows(values):
        padded = np.pad(values, reach)
        return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach)[centers]

    inside = windows(np.ones_like(onsets))
    mean = windows(onsets).sum(1, keepdims=True) / inside.sum(1, keepdims=True)
    lags = np.rint(PULSE_LAGS_S * RATE / _HOP).astype(int)
    beat = np.arange(*(round(s * RATE / _HOP) for s in _BEAT_S))
    product = librosa.autocorrelate(
        (windows(onsets) - mean) * inside, max_size=lags[-1] + 1, axis=-1
    )
    product = product / (product[:, :1] + 1e-3)
    weight = np.exp(_BEAT_SHARPNESS * product[:, beat])
    period = (weight @ np.log(beat * _HOP / RATE)) / weight.sum(1)
    return [_by_segment(local, segments), product[:, lags], period[:, None]]


def _pitch(power: np.ndarray, segments: int) -> list[np.ndarray]:
    """Returns chroma [n, 12], chroma of 4.5 s, keys [n, 3], pitch [n, 4], and register [n, 15]."""
    filters = _filters()
    power = power[:, filters.pitched]
    magnitude = np.sqrt(power)
    level = _around(power.sum(1), round(2 * _REACH_S * RATE / _PITCH_HOP) + 1)
    scale = _COMPRESSION / (np.sqrt(level) + np.float32(1e-3))
    chroma = np.log(1 + magnitude * scale[:, None]) @ filters.chroma
    chroma = _by_segment(12 * chroma / (chroma.sum(1, keepdims=True) + 1e-3), segments)
    smooth = _around(chroma, _CHROMA_SEGMENTS)
    centered = smooth - smooth.mean(1, keepdims=True)
    fit = (centered / (centered.std(1, keepdims=True) + 1e-3)) @ filters.keys
    major, minor = fit[:, :12].max(1), fit[:, 12:].max(1)

    def moments(weights):
        mean, square = ((weights @ filters.pitch) / (weights.sum(1, keepdims=True) + 1e-6)).T
        return mean, np.sqrt(np.maximum(square - mean**2, 0))

    pitch = np.stack([*moments(magnitude), *moments(power)], axis=1)
    register = power @ filters.register
    register = np.log(register / (register.sum(1, keepdims=True) + 1e-6) + np.float32(1e-4))
    return [
        chroma,
        smooth,
        np.stack([major, minor, major - minor], axis=1),
        _by_segment(pitch, segments),
        _by_segment(register, segments),
    ]


class _Filters(NamedTuple):
    """Matrices that map the bins of a power spectrum to descriptors, float32.

    Attributes:
      bands: [bins, bands] mel triangles.
      moments: [bins, 2] frequency in kHz, and its square.
      pitched: Slice of the bins that contain pitches.
      chroma: [pitched bins, 12].
      pitch: [pitched bins, 2] pitch in semitones from the middle of the range, and its square.
      register: [pitched bins, 15] thirds of an octave.
      keys: [12, 24] profiles of the major, then of the minor keys.
    """

    bands: np.ndarray
    moments: np.ndarray
    pitched: slice
    chroma: np.ndarray
    pitch: np.ndarray
    register: np.ndarray
    keys: np.ndarray


@functools.cache
def _filters() -> _Filters:
    khz = librosa.fft_frequencies(sr=RATE, n_fft=_WINDOW) / 1000
    hertz = librosa.fft_frequencies(sr=RATE, n_fft=_PITCH_WINDOW)
    midi = np.append(-np.inf, librosa.hz_to_midi(hertz[1:]))
    lowest, highest = _PITCHES
    first, last = np.searchsorted(midi, _PITCHES)
    pitched = slice(int(first), int(last))
    chroma = librosa.filters.chroma(sr=RATE, n_fft=_PITCH_WINDOW, tuning=0.0)
    semitones = midi[pitched] - (lowest + highest) / 2
    edges = np.arange(lowest, highest, _BAND_SEMITONES)
    in_band = (midi[pitched, None] >= edges) & (midi[pitched, None] < edges + _BAND_SEMITONES)
    profiles = np.stack([np.roll(p, key) for p in (_MAJOR, _MINOR) for key in range(12)], axis=1)
    profiles = (profiles - profiles.mean(0)) / profiles.std(0) / 12
    matrices = (
        librosa.filters.mel(sr=RATE, n_fft=_WINDOW, n_mels=_BANDS, norm=None).T,
        np.stack([khz, khz**2], axis=1),
        chroma[:, pitched].T,
        np.stack([semitones, semitones**2], axis=1),
        in_band / np.maximum(in_band.sum(0), 1),
        profiles,
    )
    bands, moments, *others = (np.ascontiguousarray(m, np.float32) for m in matrices)
    return _Filters(bands, moments, pitched, *others)


def _power(sound: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Returns [frames, bins], the power spectrum at every hop from 0 on."""
    spectrum = librosa.stft(sound, n_fft=window, hop_length=hop)[:, : len(sound) // hop].T
    return np.real(spectrum) ** 2 + np.imag(spectrum) ** 2


def _by_segment(frames: np.ndarray, segments: int) -> np.ndarray:
    """Returns the means [n, values] of frames [n * frames of a segment, values]."""
    return frames.reshape(segments, -1, frames.shape[-1]).mean(1)


def _around(values: np.ndarray, size: int) -> np.ndarray:
    """Returns means of `size` values along the first axis, at the ends over those that exist."""
    ones = np.ones(len(values), np.float32)
    share = uniform_filter1d(ones, size, mode="constant")
    total = uniform_filter1d(values, size, axis=0, mode="constant")
    return total / share.reshape(-1, *[1] * (values.ndim - 1))
