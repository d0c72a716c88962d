"""Copies of one recording under several song ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import EVERYONE, Song


def report_copies(journal: Journal, songs: Iterable[Song]) -> None:
    """Records songs with the same recording as an earlier song as problems."""
    first: dict[str, Song] = {}
    for song in songs:
        other = first.setdefault(song.recording, song)
        if other is not song:
            journal.problem(
                "one recording under two ids",
                song.audio or song.song_id,
                f"song {song.song_id} has the same sound as song {other.song_id}; both stay in one "
                "split",
            )


def without_repeats(
    journal: Journal, splits: Mapping[str, Sequence[Song]]
) -> dict[str, list[Song]]:
    """Returns the songs of each split, with one rating per annotator of each recording, the first.

    Otherwise support and query of an annotator's task could contain the same sound. The ratings
    left out are recorded. Averaged ratings are kept.
    """
    rated: set[tuple[str, str]] = set()
    result: dict[str, list[Song]] = {}
    for name, split in splits.items():
        result[name] = []
        for song in split:
            seen = {
                rating.annotator_id
                for rating in song.ratings
                if rating.annotator_id != EVERYONE
                and (song.recording, rating.annotator_id) in rated
            }
            reason = "its annotator rated another copy of the recording"
            journal.drop(reason, song.audio or song.song_id, len(seen))
            ratings_left = tuple(r for r in song.ratings if r.annotator_id not in seen)
            rated |= {(song.recording, rating.annotator_id) for rating in ratings_left}
            result[name].append(dataclasses.replace(song, ratings=ratings_left))
    return result
