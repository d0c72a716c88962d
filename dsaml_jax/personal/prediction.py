"""Curves of whole songs, many at a time, with one set of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.evaluation.predictor import predict_clips
from dsaml_jax.evaluation.splicing import song_windows, splice
from dsaml_jax.evaluation.windows import Clips, map_windows
from dsaml_jax.model import DSAMLConfig


def clips_at(song: SongFeatures, starts: np.ndarray, audio: AudioConfig) -> Clips:
    """Gathers the windows [W] of a song that begin at the segments `starts`.

    A window takes the embedding that starts nearest, or those of its segments.
    """
    segments = starts[:, None] + np.arange(audio.segments)
    if audio.embedding_per_segment:
        rows = segments
    else:
        rows = np.abs(song.starts - starts[:, None]).argmin(1)
    return Clips(song.log_mel[segments], song.embeddings[rows])


def predict_songs(
    model: DSAMLConfig,
    variables: dict[str, Any],
    songs: Sequence[SongFeatures],
    audio: AudioConfig,
    hops: tuple[int, int],
) -> list[np.ndarray]:
    """Predicts the curve [n, 2] of each song, by the windows and the splicing of evaluation.

    Windows of all songs share calls of one compiled size, and a window's curve does not depend on
    the windows beside it, so that a song alone and among others gives the same numbers. Where the
    network normalizes over its batch, each song has calls of its own for that reason.
    """
    if model.normalization == "batch" and len(songs) > 1:
        alone = (predict_songs(model, variables, [song], audio, hops) for song in songs)
        return [curve for (curve,) in alone]
    plans = [song_windows(len(song.log_mel), audio.segments, hops) for song in songs]
    at = np.array([(i, s) for i, plan in enumerate(plans) for s in plan.starts], int)

    def predict(windows: np.ndarray):
        parts = [clips_at(songs[i], np.array([start]), audio) for i, start in at[windows]]
        clips = Clips(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        return predict_clips(model, variables, clips)

    curves = map_windows(predict, len(at))
    ends = np.cumsum([len(plan.starts) for plan in plans])[:-1]
    return [
        splice(own, plan.window, plan.position)
        for own, plan in zip(np.split(curves, ends), plans, strict=True)
    ]
