"""One annotator's curve, checked, placed in time and cut; and the mean of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, tables
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import EVERYONE, RATING_HZ, Rating, Song

_LATE_S = 1.0  # ratings go on for so long past the audio without anything being wrong


def checked(
    journal: Journal, where: str, values: object, scale: tuple[float, float]
) -> np.ndarray | None:
    """A list of numbers mapped from `scale` to [-1, 1]; None, and a problem noted, if it is not.

    Args:
      journal: of the reading.
      where: file and place of the list.
      values: as JSON or Parquet gave them.
      scale: lowest and highest value.
    """
    if not isinstance(values, list | tuple | np.ndarray):
        told = f"{type(values).__name__} instead of a list of numbers; the rating is left out"
        journal.problem("not a list of numbers", where, told)
        return None
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            told = f"value {i} is {str(value)[:40]!r}, not a number; the rating is left out"
            journal.problem("not a number", where, told)
            return None
    numbers = np.asarray(values, np.float64)
    fault = tables.outside(numbers, scale)
    if fault is not None:
        told = f"value {fault}, {tables.outside_text(numbers[fault], scale)}"
        journal.problem("outside the scale", where, f"{told}; the rating is left out")
        return None
    return tables.to_unit(numbers, scale)


def joined(
    journal: Journal, where: str, arousal: np.ndarray | None, valence: np.ndarray | None
) -> np.ndarray | None:
    """One curve from two rows of numbers, NaN at the tail being no value.

    Where one row is longer, its tail is cut; that is counted. A hole inside a row, or an empty
    one, drops the rating.

    Returns:
      [L, 2] float32 (arousal, valence), or None.
    """
    if arousal is None or valence is None:
        return None
    rows = [_without_tail(np.asarray(row, np.float64)) for row in (arousal, valence)]
    length = min(len(row) for row in rows)
    if length == 0:
        journal.drop("no values", where)
        return None
    if any(np.isnan(row).any() for row in rows):
        journal.drop("a hole between values", where)
        return None
    extra = max(len(row) for row in rows) - length
    if extra:
        journal.count("curves cut because arousal and valence differ in length")
    return np.stack([row[:length] for row in rows], axis=1).astype(np.float32)


def song_with_audio(
    journal: Journal,
    song_id: str,
    ratings: Sequence[Rating],
    start_s: float,
    audio: Path | None,
    duration_s: float | None = None,
    **texts: str,
) -> Song:
    """The song with its duration, its ratings cut where the audio ends.

    See `cut_to_audio`. The duration is `duration_s` where it is given, else what the file's header
    says; where neither is known, it is the end of the longest rating.
    """
    longest = max((len(rating.curve) for rating in ratings), default=0)
    rated_end = start_s + longest / RATING_HZ
    length = duration_s
    if audio is not None and length is None:
        length = layout.audio_seconds(audio)
    if audio is not None and length is None:
        journal.count("audio files whose length cannot be read from their header")
    if length is not None and audio is not None:
        ratings = cut_to_audio(journal, journal.name(audio), ratings, start_s, length)
    return Song(
        song_id=song_id,
        duration_s=rated_end if length is None else length,
        ratings_start_s=start_s,
        ratings=tuple(ratings),
        audio=journal.name(audio) if audio is not None else "",
        **texts,
    )


def cut_to_audio(
    journal: Journal, audio: str, ratings: Sequence[Rating], start_s: float, length_s: float
) -> list[Rating]:
    """The ratings as far as the audio goes; none where it ends before they begin.

    A half second that has begun before the audio ends is kept. What is left out is counted, and a
    problem where it is more than a second.

    Args:
      journal: of the reading.
      audio: the file, for messages.
      ratings: of one song.
      start_s: where they begin.
      length_s: of the audio.
    """
    longest = max((len(rating.curve) for rating in ratings), default=0)
    rated_end = start_s + longest / RATING_HZ
    if length_s >= rated_end:
        return list(ratings)
    journal.count("audio files that end before the last rated half second does")
    held = max(0, int(np.ceil((length_s - start_s) * RATING_HZ - 1e-9)))
    cut = [rating for rating in ratings if len(rating.curve) > held]
    values = sum(len(rating.curve) - held for rating in cut)
    if rated_end - length_s > _LATE_S:
        journal.problem(
            "audio shorter than the rated span",
            audio,
            f"lasts {length_s:.2f} s, ratings go to {rated_end:.1f} s; {values} values of "
            f"{len(cut)} ratings are left out",
        )
    elif values:
        journal.count(f"values left out that lie up to {_LATE_S:g} s past the audio", values)
    if held == 0:
        journal.drop("audio ends before the ratings begin", audio, len(cut))
        return []
    return [dataclasses.replace(rating, curve=rating.curve[:held]) for rating in ratings]


def one_each(journal: Journal, where: str, ratings: Sequence[Rating]) -> list[Rating]:
    """The first rating of each annotator; later ones of the same song are dropped and counted."""
    kept: dict[str, Rating] = {}
    for rating in ratings:
        if rating.annotator_id in kept:
            journal.drop(
                "the annotator's second rating of the song", f"{where}, {rating.annotator_id}"
            )
        else:
            kept[rating.annotator_id] = rating
    return list(kept.values())


def consensus(ratings: Sequence[Rating]) -> Rating:
    """The mean curve of several annotators, as annotator `EVERYONE`.

    Each half second is averaged over the annotators who rated it; the curve ends where fewer than
    half of them did, because the mean would jump from there as people leave.

    Args:
      ratings: at least one, all starting together.
    """
    lengths = sorted(len(rating.curve) for rating in ratings)
    end = lengths[len(lengths) // 2]
    total = np.zeros((end, 2))
    raters = np.zeros((end, 1))
    for rating in ratings:
        part = rating.curve[:end]
        total[: len(part)] += part
        raters[: len(part)] += 1
    return Rating(EVERYONE, (total / raters).astype(np.float32))


def _without_tail(row: np.ndarray) -> np.ndarray:
    present = np.flatnonzero(~np.isnan(row))
    return row[: present[-1] + 1] if len(present) else row[:0]
