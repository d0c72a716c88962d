"""Splits of songs and annotators into training, validation and test.

Splits share neither songs nor annotators; copies of one recording (`Song.recording`) count as one
song. A rating by an annotator of one split of a song of another belongs to no split; such ratings
are counted. Everything is a pure function of the songs and a seed.

Since every song is in one split, annotators lose their ratings in the other splits, so songs rated
by the same people should stay together. Songs are therefore drawn in groups: a group starts with a
random song and repeatedly adds the song that shares the largest fraction of its raters' other
ratings with the group. Of `_STARTS` such draws, the one that keeps most ratings of the drawn split
is used.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from dsaml_jax.datasets.schema import EVERYONE, Song
from dsaml_jax.errors import UserError

SPLITS = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(3)
_STARTS = 8  # with more, every seed would find the same group


@dataclasses.dataclass(frozen=True)
class SplitRules:
    """How to split songs where the data set defines no splits.

    Attributes:
      seed: Seed of the split. It differs from the run's seed so that runs share their test songs.
      validation: Fraction of the songs (at least one song) and of the annotators for validation.
      test: Fraction of the songs (at least one song) and of the annotators for testing.
    """

    seed: int = 0
    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self):
        if self.seed < 0:
            raise UserError(f"data.split.seed is {self.seed}; expected 0 or more.")
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"data.split.{name} is {getattr(self, name)}; expected a fraction between 0 "
                    "and 1, such as 0.1."
                )
        if self.validation + self.test >= 1:
            raise UserError(
                f"data.split.validation + data.split.test is {self.validation + self.test:g}, "
                "which leaves no songs to train on; lower one of them."
            )


@dataclasses.dataclass(frozen=True)
class Partition:
    """The songs of each split, with the ratings that belong to it.

    Attributes:
      songs: {split: songs}, in the given order.
      across: {(annotator's split, song's split): number of ratings that belong to neither}.
      notes: Sentences about deviations from the released split or the config.
    """

    songs: dict[str, list[Song]]
    across: dict[tuple[str, str], int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{split}: {len(songs)} songs" for split, songs in self.songs.items()]
        parts += [
            f"{count} ratings by {who} annotators of {what} songs left out"
            for (who, what), count in self.across.items()
        ]
        return "; ".join([*parts, *self.notes])


def split_songs(
    songs: Sequence[Song], rules: SplitRules, released: Callable[[Song], str] | None = None
) -> Partition:
    """Splits by song only, for consensus labels, which have no annotators to separate.

    Args:
      songs: Songs with a rating by `EVERYONE`; other songs and other ratings are ignored.
      rules: Fractions and seed; `test` applies only if there is no released split.
      released: Maps a song to its released split, one of `SPLITS`. If no song is released as
        validation, validation is drawn from train. If none of the given songs is released as test,
        the released split is ignored, and `notes` says so.

    Raises:
      UserError: There are fewer than three songs.
    """
    songs = [
        dataclasses.replace(song, ratings=tuple(r for r in song.ratings if _is_all(r)))
        for song in songs
    ]
    songs = [song for song in songs if song.ratings]
    _check_enough(songs, "averaged ratings")
    rng = np.random.default_rng(rules.seed)
    recording_of = _recordings(songs)
    split, notes = _released(songs, recording_of, released)
    for target, fraction in ((_TEST, rules.test), (_VALIDATION, rules.validation)):
        if not (split == target).any():
            free = np.flatnonzero(split == _TRAIN)
            split[rng.permutation(free)[: _size(fraction, len(free), len(split))]] = target
    split = split[recording_of]
    chosen = {name: [songs[i] for i in np.flatnonzero(split == s)] for s, name in enumerate(SPLITS)}
    return Partition(chosen, {}, notes)


def split_people(
    songs: Sequence[Song],
    rules: SplitRules,
    released: Callable[[Song], str] | None = None,
) -> Partition:
    """Splits by song and by annotator, for personal tasks.

    Songs are split as in `split_songs`, but drawn in groups (see the module), and songs that no
    annotator of their split rated are dropped. Annotators are assigned to test, then to validation,
    if all their ratings are of that split's songs, and then those who rated most of it and lose
    little (`_members`), until the split has its fraction of the annotators; each must keep two
    ratings. If the songs of a split are released, everyone who rated one of them belongs to it
    (test before validation), so that the released test set stays complete; training loses the other
    ratings of these people. All other annotators are for training.

    Arguments and errors are those of `split_songs`. Ratings by `EVERYONE` are ignored.
    """
    songs = [
        dataclasses.replace(song, ratings=tuple(r for r in song.ratings if not _is_all(r)))
        for song in songs
    ]
    songs = [song for song in songs if song.ratings]
    _check_enough(songs, "annotators' ratings")
    people = sorted({rating.annotator_id for song in songs for rating in song.ratings})
    index = {name: i for i, name in enumerate(people)}
    recording_of = _recordings(songs)
    rated = np.zeros((len(people), max(recording_of) + 1), bool)
    for song, recording in zip(songs, recording_of, strict=True):
        rated[[index[rating.annotator_id] for rating in song.ratings], recording] = True

    rng = np.random.default_rng(rules.seed)
    split, notes = _released(songs, recording_of, released)
    split_of = np.full(len(people), _TRAIN)
    for target in (_VALIDATION, _TEST):
        split_of[rated[:, split == target].any(1)] = target
    for target, fraction in ((_TEST, rules.test), (_VALIDATION, rules.validation)):
        if (split == target).any():
            continue
        songs_free, people_free = np.flatnonzero(split == _TRAIN), np.flatnonzero(split_of == 0)
        size = _size(fraction, len(songs_free), len(split))
        quota = round(fraction * len(people))
        table = rated[np.ix_(people_free, songs_free)]
        together = _shared_raters(table)
        most = -1
        chosen_people = chosen_songs = np.zeros(0, int)
        for start in rng.permutation(len(songs_free))[:_STARTS]:
            group = _group(together, start, size)
            members = _members(table, group, quota, fraction)
            kept = table[np.ix_(members, group)]
            if kept.sum() > most:
                most, chosen_people = int(kept.sum()), members
                chosen_songs = group[kept.any(0)]  # songs that no member rated stay in training
        split[songs_free[chosen_songs]] = target
        split_of[people_free[chosen_people]] = target

    split = split[recording_of]
    across: Counter[tuple[str, str]] = Counter()
    chosen: dict[str, list[Song]] = {name: [] for name in SPLITS}
    for i, song in enumerate(songs):
        kept = []
        for rating in song.ratings:
            annotator_split = split_of[index[rating.annotator_id]]
            if annotator_split == split[i]:
                kept.append(rating)
            else:
                across[SPLITS[annotator_split], SPLITS[split[i]]] += 1
        if kept:
            chosen[SPLITS[split[i]]].append(dataclasses.replace(song, ratings=tuple(kept)))
    return Partition(chosen, dict(sorted(across.items())), notes)


def _is_all(rating) -> bool:
    return rating.annotator_id == EVERYONE


def _recordings(songs: Sequence[Song]) -> np.ndarray:
    """Returns [N] the number of each song's recording, counted in order of first appearance."""
    numbers: dict[str, int] = {}
    keys = [song.recording or f"id {song.song_id}" for song in songs]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], int)


def _check_enough(songs: Sequence[Song], what: str) -> None:
    recordings = len(set(_recordings(songs).tolist()))
    if recordings < len(SPLITS):
        raise UserError(
            f"{recordings} songs have {what} and audio; training, validation and test need at "
            "least one each."
        )


def _released(
    songs: Sequence[Song], recording_of: np.ndarray, released: Callable[[Song], str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the released split of each recording; all are `_TRAIN` if it cannot be used.

    Copies of one recording in several released splits all go to test, or else to validation.
    """
    count = int(recording_of.max()) + 1
    split = np.full(count, _TRAIN)
    if released is None:
        return split, ()
    np.maximum.at(split, recording_of, [SPLITS.index(released(song)) for song in songs])
    tests = int((split == _TEST).sum())
    if 0 < tests <= count - 2:
        return split, ()
    which = "no test songs" if tests == 0 else f"{count - tests} training songs"
    return np.full(count, _TRAIN), (
        f"the released split leaves {which} of these {count} songs, so test songs are drawn "
        "at random instead",
    )


def _size(fraction: float, free: int, songs: int) -> int:
    """Returns the size of a drawn split: at least one song, with at least one left to train on."""
    return min(max(1, round(fraction * songs)), free - 1)


def _shared_raters(rated: np.ndarray) -> np.ndarray:
    """Returns [songs, songs] the number of people who rated both; the diagonal is 0."""
    together = rated.T.astype(np.float64) @ rated
    np.fill_diagonal(together, 0)
    return together


def _group(together: np.ndarray, start: int, size: int) -> np.ndarray:
    """Returns the indices of `size` songs, a group grown greedily from `start`."""
    total = np.maximum(together.sum(0), 1)
    inside = np.zeros(len(total), bool)
    inside[start] = True
    ties = together[start].copy()
    for _ in range(size - 1):
        song = int(np.argmax(np.where(inside, -1, ties / total)))
        inside[song] = True
        ties += together[song]
    return np.flatnonzero(inside)


def _members(rated: np.ndarray, group: np.ndarray, quota: int, fraction: float) -> np.ndarray:
    """Returns a group's annotators: all who lose no rating, then up to `quota` who rated most of
    it.

    The latter may each lose at most an equal share of `fraction` of all ratings: someone who rated
    nearly every song is worth more to training.
    """
    kept = rated[:, group].sum(1)
    lost = rated.sum(1) - kept
    able = np.flatnonzero((kept >= 2) & (lost * max(quota, 1) <= fraction * rated.sum()))
    order = able[np.lexsort((lost[able], -kept[able], lost[able] > 0))]
    return order[: max(quota, int((lost[order] == 0).sum()))]
