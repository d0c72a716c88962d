"""Which songs and which annotators a model learns from, is chosen by, and is tested on.

Splits share neither songs nor annotators. A rating that falls across, say a training annotator's of
a test song, belongs to no split; how many such ratings there are is counted. Everything is a pure
function of the songs and a seed.

With every song in one split, an annotator loses the ratings in the others, so songs that the same
people rated should stay together. Songs are therefore drawn in groups: a group starts at a random
song and takes next whichever song shares the largest part of its raters' other ratings with the
group. Of `_STARTS` such draws the one that keeps most ratings of the drawn split is taken.
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
_STARTS = 8  # more would find the same group from every seed


@dataclasses.dataclass(frozen=True)
class SplitRules:
    """How songs are split where the data set does not say it itself.

    Attributes:
      seed: of the split; it is not the run's, so that runs of several seeds share their test songs.
      validation, test: parts of the songs, each at least one song, and of the annotators.
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
                    f"data.split.{name} is {getattr(self, name)}; expected a part, such as 0.1."
                )
        if self.validation + self.test >= 1:
            raise UserError("data.split leaves no songs to train on; lower validation or test.")


@dataclasses.dataclass(frozen=True)
class Partition:
    """The songs of each split, with the ratings that belong to it.

    Attributes:
      songs: {split: songs}, in the order given.
      across: {(annotator's split, song's split): ratings that belong to neither}.
      notes: sentences on what went otherwise than the data set's makers or the config meant.
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
    """Splits by song alone, for labels of everyone: there is nobody to keep apart.

    Args:
      songs: each with a rating by `EVERYONE`; those without are left out, other ratings too.
      rules: parts and seed; `test` counts only where the makers give no split.
      released: the makers' split of a song, one of `SPLITS`. Where they name no validation songs,
        validation is a part of train. Where the songs at hand hold none of test, they are split as
        if no split were known, and `notes` says so.

    Raises:
      UserError: there are fewer than three songs.
    """
    songs = [
        dataclasses.replace(song, ratings=tuple(r for r in song.ratings if _is_all(r)))
        for song in songs
    ]
    songs = [song for song in songs if song.ratings]
    _check_enough(songs, "averaged ratings")
    rng = np.random.default_rng(rules.seed)
    split, notes = _released(songs, released)
    for target, part in ((_TEST, rules.test), (_VALIDATION, rules.validation)):
        if not (split == target).any():
            free = np.flatnonzero(split == _TRAIN)
            split[rng.permutation(free)[: _size(part, len(free), len(songs))]] = target
    chosen = {name: [songs[i] for i in np.flatnonzero(split == s)] for s, name in enumerate(SPLITS)}
    return Partition(chosen, {}, notes)


def split_people(
    songs: Sequence[Song],
    rules: SplitRules,
    released: Callable[[Song], str] | None = None,
) -> Partition:
    """Splits by song and by annotator, for personal tasks.

    Songs: as in `split_songs`, but drawn in groups (see the module), and without those that nobody
    of the split rated. Annotators: to test, and then to validation, go those whose ratings all lie
    there, and beyond them those who rated most of it and lose little (`_members`), until the split
    has its part of the annotators; they must keep two ratings. Where the makers give the songs of a
    split, everybody who rated one belongs there (test before validation), so that their test is
    whole; training loses what these people rated besides. Everybody else is for training.

    Args and errors: of `split_songs`. Ratings by `EVERYONE` are left out.
    """
    songs = [
        dataclasses.replace(song, ratings=tuple(r for r in song.ratings if not _is_all(r)))
        for song in songs
    ]
    songs = [song for song in songs if song.ratings]
    _check_enough(songs, "annotators' ratings")
    people = sorted({rating.annotator_id for song in songs for rating in song.ratings})
    index = {name: i for i, name in enumerate(people)}
    rated = np.zeros((len(people), len(songs)), bool)
    for i, song in enumerate(songs):
        rated[[index[rating.annotator_id] for rating in song.ratings], i] = True

    rng = np.random.default_rng(rules.seed)
    split, notes = _released(songs, released)
    split_of = np.full(len(people), _TRAIN)
    for target in (_VALIDATION, _TEST):
        split_of[rated[:, split == target].any(1)] = target
    for target, part in ((_TEST, rules.test), (_VALIDATION, rules.validation)):
        if (split == target).any():
            continue
        songs_free, people_free = np.flatnonzero(split == _TRAIN), np.flatnonzero(split_of == 0)
        size = _size(part, len(songs_free), len(songs))
        quota = round(part * len(people))
        table = rated[np.ix_(people_free, songs_free)]
        together = _shared_raters(table)
        best = -1
        for start in rng.permutation(len(songs_free))[:_STARTS]:
            group = _group(together, start, size)
            members = _members(table, group, quota, part)
            theirs = table[np.ix_(members, group)]
            if theirs.sum() > best:
                best, chosen_people = int(theirs.sum()), members
                chosen_songs = group[theirs.any(0)]  # what none of them rated stays in training
        split[songs_free[chosen_songs]] = target
        split_of[people_free[chosen_people]] = target

    across: Counter[tuple[str, str]] = Counter()
    chosen: dict[str, list[Song]] = {name: [] for name in SPLITS}
    for i, song in enumerate(songs):
        kept = []
        for rating in song.ratings:
            who = split_of[index[rating.annotator_id]]
            if who == split[i]:
                kept.append(rating)
            else:
                across[SPLITS[who], SPLITS[split[i]]] += 1
        if kept:
            chosen[SPLITS[split[i]]].append(dataclasses.replace(song, ratings=tuple(kept)))
    return Partition(chosen, dict(sorted(across.items())), notes)


def _is_all(rating) -> bool:
    return rating.annotator_id == EVERYONE


def _check_enough(songs: Sequence[Song], what: str) -> None:
    if len(songs) < len(SPLITS):
        raise UserError(
            f"{len(songs)} songs have {what} and sound; training, validation and test need at "
            "least one each."
        )


def _released(
    songs: Sequence[Song], released: Callable[[Song], str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """[N] the makers' split of each song, all of them `_TRAIN` where it cannot serve."""
    split = np.full(len(songs), _TRAIN)
    if released is None:
        return split, ()
    split = np.array([SPLITS.index(released(song)) for song in songs])
    tests = int((split == _TEST).sum())
    if 0 < tests <= len(songs) - 2:
        return split, ()
    which = "no test songs" if tests == 0 else f"{len(songs) - tests} training songs"
    return np.full(len(songs), _TRAIN), (
        f"the makers' split leaves {which} of these {len(songs)} songs, so test songs are drawn "
        "at random instead",
    )


def _size(part: float, free: int, songs: int) -> int:
    """Songs of a drawn split: its part of all, at least one, and something left to train on."""
    return min(max(1, round(part * songs)), free - 1)


def _shared_raters(rated: np.ndarray) -> np.ndarray:
    """[songs, songs] how many people rated both, from `rated` [annotators, songs]; diagonal 0."""
    together = rated.T.astype(np.float64) @ rated
    np.fill_diagonal(together, 0)
    return together


def _group(together: np.ndarray, start: int, size: int) -> np.ndarray:
    """[size] songs grown from `start`, by `_shared_raters`."""
    total = np.maximum(together.sum(0), 1)
    inside = np.zeros(len(total), bool)
    inside[start] = True
    ties = together[start].copy()
    for _ in range(size - 1):
        song = int(np.argmax(np.where(inside, -1, ties / total)))
        inside[song] = True
        ties += together[song]
    return np.flatnonzero(inside)


def _members(rated: np.ndarray, group: np.ndarray, quota: int, part: float) -> np.ndarray:
    """Annotators of the group: all who lose nothing by it, then up to `quota` who rated most of it.

    The latter may each lose an equal share of `part` of all ratings: someone who rated nearly
    everything is worth more to training.
    """
    kept = rated[:, group].sum(1)
    lost = rated.sum(1) - kept
    able = np.flatnonzero((kept >= 2) & (lost * max(quota, 1) <= part * rated.sum()))
    order = able[np.lexsort((lost[able], -kept[able], lost[able] > 0))]
    return order[: max(quota, int((lost[order] == 0).sum()))]
