"""Music with known emotional cues: latent cue trajectories and the sound rendered from them.

Six cues convey most of the emotion that listeners perceive in music: tempo, loudness, brightness,
mode, register and note density (Gabrielsson and Lindström 2010; Eerola, Friberg and Bresin 2013,
who find that cues act almost linearly and additively). A song is drawn as six standardized
trajectories; `render` turns them into notes, chords and percussion.
"""

from __future__ import annotations

import dataclasses

import numpy as np

CUES = ("tempo", "loudness", "brightness", "mode", "register", "density")
"""Order of the last axis of cue trajectories. Mode ranges from minor (low) to major (high)."""

CUE_HZ = 2.0
"""Samples per second of a cue trajectory; cues are interpolated linearly."""

_LARGEST_LEVEL = 2.0  # standard deviations; some cues could not be rendered beyond this
_MOVEMENT = 0.36  # within-song standard deviation of a cue, as a fraction of that over songs
_SMOOTHNESS_S = 4.0  # the correlation falls to exp(-1/2) after this time: phrases, not beats

_PARTIALS = 8
_CYCLE = 2048  # samples in the table of one period
_ROOTS = (0, 0, 5, 5, 7, 7, 0, 0)  # semitones above C: one chord per beat, repeated
_MAJOR = np.array([0, 2, 4, 5, 7, 9, 11])
_MINOR = np.array([0, 2, 3, 5, 7, 8, 10])
_CHORD_BASE = 60  # MIDI number of the chords' C


def cue_trajectories(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Draws the cues of one song: one level per cue, plus smooth movement.

    z_c(t) = level_c + 0.36 m_c(t), level ~ N(0, 1) clipped to [-2, 2], m a stationary Gaussian
    process of unit variance with autocorrelation exp(-t² / (2 (4 s)²)).

    Args:
      rng: The song's own generator.
      steps: Number of samples of the trajectory, `CUE_HZ` per second.

    Returns:
      [steps, 6] float64 in the order of `CUES`, in standard deviations over songs.
    """
    # Width of the window; its autocorrelation is wider by a factor of sqrt(2).
    width = _SMOOTHNESS_S * CUE_HZ / np.sqrt(2)
    reach = int(np.ceil(4 * width))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    window /= np.linalg.norm(window)
    level = np.clip(rng.standard_normal(len(CUES)), -_LARGEST_LEVEL, _LARGEST_LEVEL)
    noise = rng.standard_normal((len(CUES), steps + 2 * reach))
    movement = np.stack([np.convolve(row, window, mode="valid") for row in noise], axis=-1)
    return level + _MOVEMENT * movement


@dataclasses.dataclass(frozen=True)
class _Notes:
    """Notes to play, as arrays [notes]: seconds, linear gain, pitch as a MIDI number."""

    start_s: np.ndarray
    length_s: np.ndarray
    pitch: np.ndarray
    gain: np.ndarray


def render(
    rng: np.random.Generator, cues: np.ndarray, duration_s: float, sample_rate: int
) -> np.ndarray:
    """Renders a song's cues as sound.

    - tempo: 105 beats per minute at z = 0, times 1.25 per standard deviation; a drum on each beat.
    - loudness: overall level, 5 dB per standard deviation.
    - brightness: partial k of a note has amplitude k^-r, r = 1.9 - 0.5 z; the drum's noise rises.
    - mode: fraction of major chords and of the melody's major notes, (1 + tanh(0.8 z)) / 2.
    - register: center of the melody, 8 semitones per standard deviation.
    - density: fraction of the half-beat and quarter-beat slots that contain a melody note.

    Args:
      rng: The song's own generator, for melody, note choice and background noise.
      cues: [steps, 6] at `CUE_HZ`, from time 0; held constant after the last step.
      duration_s: Length of the sound in seconds.
      sample_rate: Sample rate in Hz.

    Returns:
      [round(duration_s * sample_rate)] int16.
    """
    samples = round(duration_s * sample_rate)
    beats = _beat_times(cues, duration_s)
    melody, chords = _melody(rng, cues, beats), _chords(cues, beats)
    sound = np.zeros(samples, np.float32)
    _play(sound, melody, cues, sample_rate)
    _play(sound, chords, cues, sample_rate)
    _drum(rng, sound, beats, cues, sample_rate)
    times = np.arange(0, duration_s + 1, 1 / CUE_HZ)
    level = 10 ** ((5 * _at(cues, "loudness", times) - 22) / 20)
    fine = np.interp(np.arange(samples) / sample_rate, times, level).astype(np.float32)
    sound *= fine
    sound += 3e-4 * rng.standard_normal(samples, dtype=np.float32)  # room noise: about -70 dB
    return np.round(32_000 * np.tanh(sound)).astype(np.int16)


def _at(cues: np.ndarray, name: str, times_s: np.ndarray) -> np.ndarray:
    return np.interp(times_s, np.arange(len(cues)) / CUE_HZ, cues[:, CUES.index(name)])


def _beat_times(cues: np.ndarray, duration_s: float) -> np.ndarray:
    """Returns the times at which the phase, the integral of the instantaneous tempo, is whole."""
    times = np.arange(0, duration_s + 0.01, 0.01)
    beats_a_second = 105 / 60 * 1.25 ** _at(cues, "tempo", times)
    phase = np.concatenate([[0], np.cumsum(beats_a_second[:-1] * 0.01)])
    return np.interp(np.arange(np.floor(phase[-1]) + 1), phase, times)


def _majors(cues: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Returns which of the events at these times are major: the fraction, dithered over time."""
    share = (1 + np.tanh(0.8 * _at(cues, "mode", times_s))) / 2
    return np.diff(np.floor(np.concatenate([[0.5], 0.5 + np.cumsum(share)]))) > 0


def _chords(cues: np.ndarray, beats: np.ndarray) -> _Notes:
    """Returns one triad per beat, in close position around middle C."""
    start, length = beats[:-1], np.diff(beats)
    third = np.where(_majors(cues, start), 4, 3)
    root = np.resize(_ROOTS, len(start))
    triad = np.stack([root, root + third, root + 7], axis=-1) % 12 + _CHORD_BASE
    return _Notes(
        np.repeat(start, 3),
        np.repeat(length, 3),
        triad.ravel(),
        np.tile([0.3, 0.5, 0.3], len(start)),  # the third determines the mode: a little louder
    )


def _melody(rng: np.random.Generator, cues: np.ndarray, beats: np.ndarray) -> _Notes:
    """Returns notes on quarter-beat slots, wandering around the register in the mode's scale."""
    index = np.arange(0, len(beats) - 1, 0.25)
    slots = np.interp(index, np.arange(len(beats)), beats)
    share = 1 / (1 + np.exp(0.6 - 1.1 * _at(cues, "density", slots)))
    on = np.diff(np.floor(np.concatenate([[0], np.cumsum(share)]))) > 0
    start = slots[on]
    if not len(start):
        return _Notes(*np.zeros((4, 0)))
    length = np.clip(1.2 * np.diff(start, append=start[-1] + 0.3), 0.1, 0.5)
    center = 67 + 8 * _at(cues, "register", start)
    contour = np.sin(2 * np.pi * np.cumsum(rng.uniform(0, 0.3, len(start))))
    wanted = center + 4 * contour + rng.uniform(-1.5, 1.5, len(start))
    scale = np.where(_majors(cues, start)[:, None], _MAJOR, _MINOR)
    octave = np.floor(wanted / 12)
    distance = np.abs(wanted[:, None] % 12 - scale)
    pitch = 12 * octave + scale[np.arange(len(start)), distance.argmin(-1)]
    return _Notes(start, length, pitch, np.full(len(start), 0.8))


def _play(sound: np.ndarray, notes: _Notes, cues: np.ndarray, sample_rate: int) -> None:
    """Adds the notes to `sound`, each from a table of one period at its own brightness."""
    if not len(notes.start_s):
        return
    partial = np.arange(1, _PARTIALS + 1)
    frequency = 440 * 2 ** ((notes.pitch - 69) / 12)
    slope = np.clip(1.9 - 0.5 * _at(cues, "brightness", notes.start_s), 0.4, 4.0)
    amplitude = partial ** -slope[:, None] * (partial * frequency[:, None] < 0.45 * sample_rate)
    amplitude *= (notes.gain / np.linalg.norm(amplitude, axis=-1))[:, None]  # loudness is separate
    period = np.sin(2 * np.pi * partial[:, None] * np.arange(_CYCLE) / _CYCLE)
    tables = (amplitude @ period).astype(np.float32)
    first = np.round(notes.start_s * sample_rate).astype(int)
    count = np.minimum(np.round(notes.length_s * sample_rate).astype(int), len(sound) - first)
    clock = np.arange(max(count.max(), 1), dtype=np.float32)
    decay = np.exp(-clock / (0.35 * sample_rate)) * np.minimum(clock / (0.006 * sample_rate), 1)
    release = np.linspace(1, 0, round(0.03 * sample_rate), dtype=np.float32)
    for table, begin, n, step in zip(
        tables, first, count, frequency * _CYCLE / sample_rate, strict=True
    ):
        if n <= len(release):
            continue  # the song ends before the note's release would
        cycle = (clock[:n] * np.float32(step)).astype(np.int32) & (_CYCLE - 1)
        tone = table[cycle] * decay[:n]
        tone[-len(release) :] *= release
        sound[begin : begin + n] += tone


def _drum(
    rng: np.random.Generator,
    sound: np.ndarray,
    beats: np.ndarray,
    cues: np.ndarray,
    sample_rate: int,
) -> None:
    """Adds a short burst on each beat: a thump, and noise that grows with brightness."""
    n = round(0.08 * sample_rate)
    clock = np.arange(n) / sample_rate
    thump = np.sin(2 * np.pi * 70 * clock) * np.exp(-clock / 0.03)
    hiss = rng.standard_normal(n) * np.exp(-clock / 0.012)
    bright = 0.35 * 2 ** (0.5 * _at(cues, "brightness", beats))
    for begin, high in zip(np.round(beats * sample_rate).astype(int), bright, strict=True):
        burst = (thump + high * hiss)[: max(0, len(sound) - begin)]
        sound[begin : begin + len(burst)] += burst.astype(np.float32)
