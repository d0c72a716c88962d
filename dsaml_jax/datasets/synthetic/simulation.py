"""Simulation of songs and their ratings: who rates which song, each with its own random stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dsaml_jax.datasets import schema
from dsaml_jax.datasets.synthetic import listeners, music
from dsaml_jax.datasets.synthetic.settings import SPLITS, SyntheticSettings
from dsaml_jax.runtime.pool import over_processes

_SONG, _ANNOTATOR, _RATING = range(3)  # the owner of a random stream
_SONG_INFIX = "-song-"  # between split and number in a song's id


class _Job(NamedTuple):
    """A song to draw: its place in the split, and who rates it."""

    settings: SyntheticSettings
    split: str
    song: int
    raters: list[tuple[int, str, listeners.Listener]]


def songs(settings: SyntheticSettings, split: str, processes: int = 1) -> Iterator[schema.Song]:
    """Draws the songs of a split, each with all its ratings, in `processes` processes.

    Each song, annotator and rating has its own random stream, identified by split and index:
    neither a song's sound nor an annotator's rating of it depends on how many others there are.
    """
    annotators = draw_annotators(settings, split)
    rated_by = draw_assignment(settings, split)
    jobs = (
        _Job(
            settings,
            split,
            i,
            [(j, *annotators[j]) for j in np.flatnonzero(rated_by[:, i]).tolist()],
        )
        for i in range(getattr(settings, f"{split}_songs"))
    )
    yield from over_processes(_draw_song, jobs, processes)


def _draw_song(job: _Job) -> schema.Song:
    settings, split, song, raters = job
    cues = draw_cues(settings, split, song)
    stimulus = (cues, settings.ratings_start_s, settings.ratings)
    ratings = []
    for j, name, listener in raters:
        rng = _stream(settings, split, _RATING, song, j)
        perceived = listeners.perceive(listener, *stimulus)
        curve = listeners.rate(rng, listener, perceived, settings.spread)
        ratings.append(schema.Rating(name, curve, perceived))
    average = listeners.average_listener(settings.spread)
    rng = _stream(settings, split, _SONG, song, 1)
    return schema.Song(
        song_id=f"{split}{_SONG_INFIX}{song:04d}",
        duration_s=settings.duration_s,
        ratings_start_s=settings.ratings_start_s,
        ratings=tuple(ratings),
        waveform=music.render(rng, cues, settings.duration_s, settings.sample_rate),
        sample_rate=settings.sample_rate,
        population=listeners.perceive(average, *stimulus),
    )


def draw_cues(settings: SyntheticSettings, split: str, song: int) -> np.ndarray:
    """Returns [steps, 6], the cues of a song from the start of its sound to the end."""
    steps = int(np.ceil(settings.duration_s * music.CUE_HZ)) + 1
    return music.cue_trajectories(_stream(settings, split, _SONG, song, 0), steps)


def cues_of(settings: SyntheticSettings, song_id: str) -> np.ndarray:
    """Returns [steps, 6], the cues of a song by its id: `draw_cues`."""
    split, number = song_id.split(_SONG_INFIX)
    return draw_cues(settings, split, int(number))


def draw_annotators(
    settings: SyntheticSettings, split: str
) -> list[tuple[str, listeners.Listener]]:
    """Returns the annotators of a split as (annotator id, listener)."""
    return [
        (
            f"{split}-annotator-{j:04d}",
            listeners.draw_listener(_stream(settings, split, _ANNOTATOR, j, 0), settings.spread),
        )
        for j in range(getattr(settings, f"{split}_annotators"))
    ]


def draw_assignment(settings: SyntheticSettings, split: str) -> np.ndarray:
    """Returns [annotators, songs] bool, who rates which song."""
    songs = getattr(settings, f"{split}_songs")
    annotators = getattr(settings, f"{split}_annotators")
    rated = np.zeros((annotators, songs), bool)
    for j in range(annotators):
        rng = _stream(settings, split, _ANNOTATOR, j, 1)
        share = 1 - rng.random()
        wanted = settings.minimum_songs * share ** (-1 / settings.activity_exponent)
        count = int(min(wanted, songs))
        rated[j, np.argsort(rng.random(songs))[:count]] = True
    return rated


def _stream(settings: SyntheticSettings, split: str, kind: int, *index: int) -> np.random.Generator:
    key = (SPLITS.index(split), kind, *index)
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))
