"""Splits: songs and annotators apart, every rating kept or counted, few lost."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.datasets.splits import SPLITS, SplitRules, split_people, split_songs
from dsaml_jax.errors import UserError

CURVE = np.zeros((2, 2), np.float32)


def songs_of(rated, everyone=True):
    """Songs rated by the people listed for each, and by everyone."""
    return [
        Song(
            song_id=f"{song:03d}",
            duration_s=1.0,
            ratings_start_s=0.0,
            ratings=tuple(
                Rating(str(name), CURVE) for name in [*people, *([EVERYONE] if everyone else [])]
            ),
        )
        for song, people in enumerate(rated)
    ]


def at_random(seed, songs=40, people=60, each=5):
    rng = np.random.default_rng(seed)
    rated = [[] for _ in range(songs)]
    for name in range(people):
        for song in rng.choice(songs, each, replace=False):
            rated[song].append(f"rater {name}")
    return songs_of(rated)


def neighbors(songs=40, each=10):
    """A pair of neighboring songs for each of many raters, as VGMIDI's are."""
    rated = [[] for _ in range(songs)]
    for first in range(songs - 1):
        for i in range(each):
            rated[first].append(f"rater {first} {i}")
            rated[first + 1].append(f"rater {first} {i}")
    return songs_of(rated)


def people_of(songs):
    return {rating.annotator_id for song in songs for rating in song.ratings}


def count(songs):
    return sum(len(song.ratings) for song in songs)


@pytest.mark.parametrize("seed", range(4))
def test_songs_and_annotators_are_apart_and_every_rating_is_kept_or_counted(seed):
    given = at_random(seed)
    found = split_people(given, SplitRules(seed=seed))
    for kind in (people_of, lambda songs: {song.song_id for song in songs}):
        sets = [kind(found.songs[split]) for split in SPLITS]
        assert all(sets) and sum(map(len, sets)) == len(set.union(*sets))
    kept = sum(count(found.songs[split]) for split in SPLITS)
    assert kept + sum(found.across.values()) == count(given) - len(given)
    assert EVERYONE not in people_of(itertools.chain(*found.songs.values()))
    sizes = {split: len(found.songs[split]) for split in SPLITS}
    assert sum(sizes.values()) == 40 and 2 <= sizes["validation"] <= 4 <= sizes["test"] <= 8
    for split in ("validation", "test"):
        each = collections.Counter(r.annotator_id for s in found.songs[split] for r in s.ratings)
        assert min(each.values()) >= 2


def test_a_split_is_a_function_of_its_seed():
    first, again, other = (split_people(at_random(0), SplitRules(seed=s)) for s in (3, 3, 4))
    names = [[song.song_id for song in found.songs["test"]] for found in (first, again, other)]
    assert names[0] == names[1] != names[2]
    assert str(first) == str(again)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_form_a_chain_are_hardly_cut(seed):
    """Two groups of neighbors cut at most four of a chain's 39 links, songs at random half."""
    found = split_people(neighbors(), SplitRules(seed=seed))
    pairs = sum(count(found.songs[split]) for split in SPLITS) // 2
    lost = 39 * 10 - pairs
    assert lost <= 4 * 10
    assert len(found.songs["test"]) == 8 and len(people_of(found.songs["test"])) >= 60


def test_the_makers_test_songs_stay_whole_and_their_raters_leave_training():
    given = at_random(1)

    def released(song):
        return "test" if int(song.song_id) >= 36 else "train"

    found = split_people(given, SplitRules(), released)
    expected = [song for song in given if released(song) == "test"]
    assert [song.song_id for song in found.songs["test"]] == [song.song_id for song in expected]
    assert people_of(found.songs["test"]) == people_of(expected) - {EVERYONE}
    assert count(found.songs["test"]) == count(expected) - len(expected)
    assert not people_of(found.songs["test"]) & people_of(found.songs["train"])
    assert set(found.across) <= {
        (who, what) for who in SPLITS for what in SPLITS if who != what and what != "test"
    }
    assert found.across["test", "train"] > 0
    assert "ratings by test annotators of train songs left out" in str(found)


def test_a_full_split_by_the_makers_is_kept():
    given = songs_of([["a"], ["a"], ["b"], ["c"]])
    names = dict(
        zip(["000", "001", "002", "003"], ["train", "train", "validation", "test"], strict=True)
    )
    found = split_people(given, SplitRules(), lambda song: names[song.song_id])
    assert {split: people_of(songs) for split, songs in found.songs.items()} == {
        "train": {"a"},
        "validation": {"b"},
        "test": {"c"},
    }
    assert not found.across and not found.notes


def test_songs_without_the_makers_test_songs_are_split_at_random_and_it_is_said():
    found = split_songs(at_random(0, songs=10), SplitRules(), lambda song: "train")
    assert [len(found.songs[split]) for split in SPLITS] == [7, 1, 2]
    assert "no test songs of these 10 songs" in str(found)


def test_labels_of_everyone_split_by_song_alone():
    given = at_random(0)
    given[3] = dataclasses.replace(given[3], ratings=given[3].ratings[:-1])
    found = split_songs(given, SplitRules(seed=1))
    assert people_of(itertools.chain(*found.songs.values())) == {EVERYONE}
    assert sum(len(songs) for songs in found.songs.values()) == 39
    assert not found.across
    for rule in ("validation", "test"):
        assert {s.song_id for s in found.songs[rule]} != {
            s.song_id for s in split_songs(given, SplitRules(seed=2)).songs[rule]
        }


def test_too_few_songs_and_bad_parts_are_refused():
    with pytest.raises(UserError, match="2 songs have annotators' ratings"):
        split_people(songs_of([["a"], ["b"], []]), SplitRules())
    with pytest.raises(UserError, match="2 songs have averaged ratings"):
        split_songs(songs_of([["a"], ["b"]]), SplitRules())
    for fields, sentence in (
        ({"test": 0.0}, r"data\.split\.test"),
        ({"seed": -1}, r"data\.split\.seed"),
        ({"test": 0.6, "validation": 0.5}, "no songs to train on"),
    ):
        with pytest.raises(UserError, match=sentence):
            SplitRules(**fields)
