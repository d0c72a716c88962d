"""Curves of whole songs, many at a time, with one set of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.evaluation.encoding import curves_of, map_encoded, predict_song
from dsaml_jax.evaluation.splicing import song_windows, splice
from dsaml_jax.evaluation.windows import Clips, WindowInputs, Windows
from dsaml_jax.model import DSAMLConfig


def window_rows(song: SongFeatures, starts: np.ndarray, audio: AudioConfig) -> np.ndarray:
    """Returns the embeddings' rows of windows: [W], those that start nearest, or [W, S]."""
    if audio.embedding_per_segment:
        return starts[:, None] + np.arange(audio.segments)
    return np.abs(song.starts - starts[:, None]).argmin(1)


def clips_at(song: SongFeatures, starts: np.ndarray, audio: AudioConfig) -> Clips:
    """Gathers the windows [W] of a song that begin at the segments `starts`."""
    inputs = WindowInputs(song.log_mel, song.embeddings)
    return inputs.clips(starts, window_rows(song, starts, audio), audio.segments)


def predict_songs(
    model: DSAMLConfig,
    variables: dict[str, Any],
    songs: Sequence[SongFeatures],
    audio: AudioConfig,
    hops: tuple[int, int],
) -> list[np.ndarray]:
    """Predicts the curve [n, 2] of each song, by the windows and the splicing of evaluation.

    With normalization "clip" windows of all songs share calls of one compiled size, and a window's
    curve does not depend on the windows beside it. Otherwise each song has calls of its own. So a
    song alone and among others gives the same numbers.
    """
    if model.normalization != "clip":
        return [predict_song(model, variables, song, audio.segments, hops) for song in songs]
    plans = [song_windows(len(song.log_mel), audio.segments, hops) for song in songs]
    segments = np.cumsum([0, *(len(song.log_mel) for song in songs)])
    rows = np.cumsum([0, *(len(song.embeddings) for song in songs)])
    each = [*zip(songs, plans, segments, rows, strict=False)]
    at = np.concatenate([first + plan.starts for _, plan, first, _ in each])
    row = np.concatenate([first + window_rows(s, p.starts, audio) for s, p, _, first in each])
    inputs = WindowInputs(
        np.concatenate([song.log_mel for song in songs]),
        np.concatenate([song.embeddings for song in songs]),
    )
    windows = Windows(at, row, audio.segments)
    curves = map_encoded(curves_of, model, variables, inputs, windows)
    ends = np.cumsum([len(plan.starts) for plan in plans])[:-1]
    return [
        splice(own, plan.window, plan.position)
        for own, plan in zip(np.split(curves, ends), plans, strict=True)
    ]
