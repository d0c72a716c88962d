"""Checking, combining and cutting annotators' curves, and averaging them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.datasets import layout, report, tables
from dsaml_jax.datasets.ids import plain_id
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import DIMENSIONS, EVERYONE, RATING_HZ, Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import is_utf8

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
    """Maps a list of numbers from `scale` to [-1, 1].

    If it is invalid, returns None and records a problem of one row.

    Args:
      journal: Journal of the reading.
      where: File and position of the list.
      values: As read from JSON or Parquet.
      scale: Lowest and highest value.
    """
    if not isinstance(values, list | tuple | np.ndarray):
        what = f"{type(values).__name__} instead of a list of numbers; the rating is left out"
        journal.problem("not a list of numbers", where, what, rows=1)
        return None
    numbers = np.empty(len(values))
    for i, value in enumerate(values):
        converted = as_number(value)
        if converted is None:
            what = f"value {i} is {shown(value)}, not a number; the rating is left out"
            journal.problem("not a number", where, what, rows=1)
            return None
        numbers[i] = converted
    outlier = tables.outside(numbers, scale)
    if outlier is not None:
        what = f"value {outlier}, {tables.outside_text(numbers[outlier], scale)}"
        journal.problem("outside the scale", where, f"{what}; the rating is left out", rows=1)
        return None
    return tables.to_unit(numbers, scale)


def checked_curve(
    journal: Journal,
    where: str,
    values: Mapping[str, object],
    scale: tuple[float, float],
    prefix: str = "",
) -> np.ndarray | None:
    """Returns the curve of one row that holds both dimensions; None if it is left out.

    See `checked` and `joined`. The first fault of a row is recorded.
    """
    both = []
    for name in DIMENSIONS:
        numbers = checked(journal, f"{where}, {prefix}{name}", values[name], scale)
        if numbers is None:
            return None
        both.append(numbers)
    return joined(journal, where, *both)


def joined(
    journal: Journal,
    where: str,
    arousal: np.ndarray,
    valence: np.ndarray,
    rows_each: int = 1,
) -> np.ndarray | None:
    """Combines two rows of numbers into one curve; trailing NaNs are missing values.

    If one row is longer, its tail is cut, which is counted. A gap inside a row or an empty row
    drops the rating, which consists of `rows_each` rows of the source.

    Returns:
      [L, 2] float32 (arousal, valence), or None.
    """
    rows = [_without_tail(np.asarray(row, np.float64)) for row in (arousal, valence)]
    length = min(len(row) for row in rows)
    if length == 0:
        journal.drop("no values", where, rows=rows_each)
        return None
    if any(np.isnan(row).any() for row in rows):
        journal.drop("a hole between values", where, rows=rows_each)
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
        title=_valid_text(journal, song_id, "title", texts),
        artist=_valid_text(journal, song_id, "artist", texts),
        genre=_valid_text(journal, song_id, "genre", texts),
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


def one_each(
    journal: Journal, where: str, ratings: Sequence[Rating], rows_each: int = 1
) -> list[Rating]:
    """Returns each annotator's first rating of the song; later ones are dropped and counted.

    The rows of those returned, `rows_each` per rating, are counted as used.
    """
    kept: dict[str, Rating] = {}
    for rating in ratings:
        if rating.annotator_id in kept:
            journal.drop(
                "the annotator's second rating of the song",
                f"{where}, {rating.annotator_id}",
                rows=rows_each,
            )
        else:
            kept[rating.annotator_id] = rating
    journal.rows_used += rows_each * len(kept)
    return list(kept.values())


def annotator(journal: Journal, where: str, value: object) -> str:
    """Returns an annotator's id, or "", which is recorded as a problem of one row."""
    name = plain_id(value)
    if name and name.lower() != EVERYONE:
        return name
    what = f"{shown(value)} is not an annotator's id; the row is left out"
    journal.problem("no annotator", where, what, rows=1)
    return ""


def song(journal: Journal, where: str, value: object) -> str:
    """Returns a song's id, or "", which is recorded as a problem of one row."""
    song_id = plain_id(value)
    if not song_id:
        what = f"{shown(value)} is not a song's id; the row is left out"
        journal.problem("no song", where, what, rows=1)
    return song_id


def as_number(value: object) -> float | None:
    """Returns a number from JSON or Parquet as a float, perhaps infinite or NaN; otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None


def shown(value: object) -> str:
    """Formats a value from the source for messages, shortened."""
    simple = isinstance(value, str | int | float | np.number) or value is None
    try:
        return repr(value[:40] if isinstance(value, str) else value)[:60] if simple else "not text"
    except ValueError:  # an integer of more than 4300 digits
        return "a very long number"


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


def _valid_text(journal: Journal, song_id: str, name: str, texts: Mapping[str, str]) -> str:
    """Returns a text of the song; "" if it is not valid Unicode, which is recorded as a problem."""
    text = texts.get(name, "")
    if is_utf8(text):
        return text
    what = f"{report.printable(repr(text[:40]))} has a lone surrogate; it is left out"
    journal.problem("a text that is not Unicode", f"song {song_id}, {name}", what)
    return ""


def _without_tail(row: np.ndarray) -> np.ndarray:
    present = np.flatnonzero(~np.isnan(row))
    return row[: present[-1] + 1] if len(present) else row[:0]
