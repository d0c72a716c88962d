"""Filters that select which ratings to learn from, as functions of songs."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class RatingFilter:
    """Criteria that ratings must meet; the defaults are the PyTorch release's for DEAM.

    Attributes:
      least_deviation: A rating is dropped if mean |x - mean x| over its first `span` values is
        below this in either dimension; 0 keeps all.
      span: Number of values inspected, at two per second.
      more_songs_than: Annotators who rated this many songs or fewer are dropped, counted after
        flat ratings are removed; 0 keeps all.
    """

    least_deviation: float = 0.01
    span: int = 60
    more_songs_than: int = 15


@dataclasses.dataclass(frozen=True)
class FilterCounts:
    """Counts of what a filter removed.

    Attributes:
      flat: Ratings dropped because they hardly change.
      rare: Ratings dropped because their annotator rated too few songs.
      annotators: Annotators who had at least one rating before and have none after.
      songs: Songs that had at least one rating before and have none after; they are removed too.
    """

    flat: int
    rare: int
    annotators: int
    songs: int


def deviation(curve: np.ndarray, span: int) -> np.ndarray:
    """Returns mean |x - mean x| over the first `span` values of an [L, 2] curve, per dimension."""
    head = curve[:span].astype(np.float64)
    return np.abs(head - head.mean(axis=0)).mean(axis=0)


def apply(songs: Sequence[Song], rules: RatingFilter) -> tuple[list[Song], FilterCounts]:
    """Returns the songs with the ratings that pass, and counts of what was removed.

    The aggregate ("all") always passes. Annotators are counted over the songs given, so a split
    is filtered by giving its songs alone.
    """
    lively = _keep(songs, lambda rating: not _is_flat(rating, rules))
    songs_of = collections.Counter(
        name for song in lively for name in {rating.annotator_id for rating in song.ratings}
    )
    busy = _keep(
        lively,
        lambda rating: (
            rating.annotator_id == EVERYONE or songs_of[rating.annotator_id] > rules.more_songs_than
        ),
    )
    kept = [song for song in busy if song.ratings]
    rated = sum(bool(song.ratings) for song in songs)
    return kept, FilterCounts(
        flat=_ratings(songs) - _ratings(lively),
        rare=_ratings(lively) - _ratings(busy),
        annotators=len(_annotators(songs) - _annotators(kept)),
        songs=rated - len(kept),
    )


def nothing_passes(rules: RatingFilter, removed: Iterable[FilterCounts], where: str) -> UserError:
    """Returns the error to raise if no annotator's rating is left; it names every filter.

    Args:
      rules: The filters that were applied.
      removed: What they removed from each split.
      where: The data set, for the message.
    """
    counts = list(removed)
    return UserError(
        f"{where}: no annotator's rating passes data.filters: {sum(c.flat for c in counts)} change "
        f"by less than data.filters.least_deviation={rules.least_deviation:g}, and "
        f"{sum(c.rare for c in counts)} are by annotators who rated "
        f"data.filters.more_songs_than={rules.more_songs_than} songs or fewer; lower the field "
        "that removes them, 0 disables it."
    )


def _is_flat(rating: Rating, rules: RatingFilter) -> bool:
    if rating.annotator_id == EVERYONE:
        return False
    return bool(np.any(deviation(rating.curve, rules.span) < rules.least_deviation))


def _keep(songs: Sequence[Song], passes: Callable[[Rating], bool]) -> list[Song]:
    return [
        dataclasses.replace(song, ratings=tuple(filter(passes, song.ratings))) for song in songs
    ]


def _ratings(songs: Sequence[Song]) -> int:
    return sum(len(song.ratings) for song in songs)


def _annotators(songs: Sequence[Song]) -> set[str]:
    return {rating.annotator_id for song in songs for rating in song.ratings}
