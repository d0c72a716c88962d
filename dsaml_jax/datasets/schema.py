"""The schema of songs and ratings: one for every data set, as TFDS stores it.

A TFDS example is one song with all its ratings. Ratings of a song differ in length, so their curves
are concatenated in `curves` [sum of lengths, 2]; `curve_lengths` [ratings] says where to split
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

RATING_HZ = 2.0
"""Ratings per second after resampling, in every data set."""

DIMENSIONS = ("arousal", "valence")
"""Order of the last axis of every curve and every prediction."""

EVERYONE = "all"
"""The annotator id of labels averaged over annotators; it never forms a personal task."""


@dataclasses.dataclass(frozen=True)
class Rating:
    """One annotator's curve for one song.

    Attributes:
      annotator_id: The annotator; `EVERYONE` for an average over annotators.
      curve: [L, 2] float32, (arousal, valence) in [-1, 1]; row i covers the half second that
        starts `i / RATING_HZ` seconds after the song's `ratings_start_s`.
      noise_free: [L, 2] float32, what a simulated annotator perceived before rating noise; None
        for real annotators, for whom it is unknown.
    """

    annotator_id: str
    curve: np.ndarray
    noise_free: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Song:
    """One song: its sound, its ratings, and when the ratings start.

    Attributes:
      song_id: Unique in the data set.
      duration_s: Length of the audio in seconds.
      ratings_start_s: Time of the first rating from the start of the audio, in seconds.
      ratings: In the order of the source.
      audio: Path of the audio file, relative to the data set's root; empty if `waveform` is given.
      waveform: [samples] int16 mono, for data sets that include their sound; else None.
      sample_rate: Rate of `waveform` in Hz; 0 if `audio` names a file.
      population: [L, 2] float32, the ground-truth mean curve; None except in simulated data.
      title: Empty if unknown.
      artist: Empty if unknown.
      genre: Empty if unknown.
      recording: Hash of the audio, equal for copies under several ids; empty until preparation
        sets it. It is not stored.
    """

    song_id: str
    duration_s: float
    ratings_start_s: float
    ratings: tuple[Rating, ...]
    audio: str = ""
    waveform: np.ndarray | None = None
    sample_rate: int = 0
    population: np.ndarray | None = None
    title: str = ""
    artist: str = ""
    genre: str = ""
    recording: str = ""


_EMPTY_CURVE = np.zeros((0, 2), np.float32)
_TEXTS = ("song_id", "audio", "title", "artist", "genre")


def features() -> tfds.features.FeaturesDict:
    """Returns the TFDS features of a song, shared by every builder."""
    return tfds.features.FeaturesDict(
        {name: tfds.features.Text() for name in _TEXTS}
        | {
            "duration_s": tfds.features.Scalar(np.float32),
            "ratings_start_s": tfds.features.Scalar(np.float32),
            # Raw bytes: TFDS writes and reads them several times faster than a list of integers.
            "waveform": tfds.features.Text(),
            "sample_rate": tfds.features.Scalar(np.int32),
            "annotators": tfds.features.Sequence(tfds.features.Text()),
            "curve_lengths": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "curves": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "noise_free": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "population": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
        }
    )


def encode(song: Song) -> dict[str, Any]:
    """Returns the TFDS example of a song; the inverse of `decode`."""
    noise_free = [rating.noise_free for rating in song.ratings if rating.noise_free is not None]
    if len(noise_free) not in (0, len(song.ratings)):
        raise ValueError(f"song {song.song_id}: noise-free curves for some ratings, not for all")
    return {name: getattr(song, name) for name in _TEXTS} | {
        "duration_s": np.float32(song.duration_s),
        "ratings_start_s": np.float32(song.ratings_start_s),
        "waveform": b"" if song.waveform is None else song.waveform.astype("<i2").tobytes(),
        "sample_rate": np.int32(song.sample_rate),
        "annotators": [rating.annotator_id for rating in song.ratings],
        "curve_lengths": np.array([len(rating.curve) for rating in song.ratings], np.int32),
        "curves": _end_to_end([rating.curve for rating in song.ratings]),
        "noise_free": _end_to_end(noise_free),
        "population": _EMPTY_CURVE if song.population is None else song.population,
    }


def decode(example: Mapping[str, Any]) -> Song:
    """Returns the song of a TFDS example; the inverse of `encode`. `Text` arrives as bytes."""
    cuts = np.cumsum(example["curve_lengths"])[:-1]
    curves = np.split(example["curves"], cuts)
    noise_free = np.split(example["noise_free"], cuts) if len(example["noise_free"]) else None
    waveform = example["waveform"]
    annotators = [_text(name) for name in example["annotators"]]
    return Song(
        duration_s=float(example["duration_s"]),
        ratings_start_s=float(example["ratings_start_s"]),
        ratings=tuple(
            Rating(name, curves[i], None if noise_free is None else noise_free[i])
            for i, name in enumerate(annotators)
        ),
        waveform=np.frombuffer(waveform, "<i2") if len(waveform) else None,
        sample_rate=int(example["sample_rate"]),
        population=example["population"] if len(example["population"]) else None,
        **{name: _text(example[name]) for name in _TEXTS},
    )


def _end_to_end(curves: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(curves).astype(np.float32) if curves else _EMPTY_CURVE


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
