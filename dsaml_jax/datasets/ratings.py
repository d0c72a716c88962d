"""Checking, combining and cutting annotators' curves, and averaging them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.datasets import layout, tables
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import EVERYONE, RATING_HZ, Rating, Song
from dsaml_jax.errors import UserError

_LATE_S = 1.0  # ratings may continue this long past the end of the audio without being a problem


def check_rating_period(audio: AudioConfig) -> None:
    """Raises UserError unless a segment of sound lasts as long as a rating."""
    if audio.segment_s != 1 / RATING_HZ:
        raise UserError(
            f"audio.segment_s is {audio.segment_s}; expected {1 / RATING_HZ} s, the interval "
            "between two ratings of a song."
        )


def checked(
    journal: Journal, where: str, values: object, scale: tuple[float, float]
) -> np.ndarray | None:
    """Maps a list of numbers from `scale` to [-1, 1]; records a problem and returns None if
    invalid.

    Args:
      journal: Journal of the reading.
      where: File and position of the list.
      values: As read from JSON or Parquet.
      scale: Lowest and highest value.
    """
    if not isinstance(values, list | tuple | np.ndarray):
        what = f"{type(values).__name__} instead of a list of numbers; the rating is left out"
        journal.problem("not a list of numbers", where, what)
        return None
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            what = f"value {i} is {str(value)[:40]!r}, not a number; the rating is left out"
            journal.problem("not a number", where, what)
            return None
    numbers = np.asarray(values, np.float64)
    outlier = tables.outside(numbers, scale)
    if outlier is not None:
        what = f"value {outlier}, {tables.outside_text(numbers[outlier], scale)}"
        journal.problem("outside the scale", where, f"{what}; the rating is left out")
        return None
    return tables.to_unit(numbers, scale)


def joined(
    journal: Journal, where: str, arousal: np.ndarray | None, valence: np.ndarray | None
) -> np.ndarray | None:
    """Combines two rows of numbers into one curve; trailing NaNs are missing values.

    If one row is longer, its tail is cut, which is counted. A gap inside a row or an empty row
    drops the rating.

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
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Song:
    """Returns the song with its duration and its ratings cut at the end of the audio.

    See `cut_to_audio`. The duration is `duration_s` if given, else the one in the file's header; if
    neither is known, it is the end of the longest rating.
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
        title=texts.get("title", ""),
        artist=texts.get("artist", ""),
        genre=texts.get("genre", ""),
    )


def cut_to_audio(
    journal: Journal, audio: str, ratings: Sequence[Rating], start_s: float, length_s: float
) -> list[Rating]:
    """Cuts ratings at the end of the audio; returns none if it ends before they begin.

    A half second that begins before the end of the audio is kept. Removed values are counted, and
    are a problem if the ratings continue for more than a second.

    Args:
      journal: Journal of the reading.
      audio: The file, for messages.
      ratings: Ratings of one song.
      start_s: Time of the first rating.
      length_s: Length of the audio.
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
    """Returns each annotator's first rating of the song; later ones are dropped and counted."""
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
    """Returns the mean curve of several annotators, as annotator `EVERYONE`.

    Each half second is averaged over the annotators who rated it. The curve ends where fewer than
    half of them did, because the mean would jump as annotators drop out.

    Args:
      ratings: At least one; all start at the same time.
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
