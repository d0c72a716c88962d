"""Splits: disjoint songs and annotators, every rating kept or counted, few lost."""

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
    """Returns songs rated by the people listed for each, and their consensus."""
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
    """Returns songs of raters who each rated two neighboring songs, as in VGMIDI."""
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
def test_splits_are_disjoint_and_every_rating_is_kept_or_counted(seed):
    rated_songs = at_random(seed)
    result = split_people(rated_songs, SplitRules(seed=seed))
    for kind in (people_of, lambda songs: {song.song_id for song in songs}):
        sets = [kind(result.songs[split]) for split in SPLITS]
        assert sets[0] and sets[2] and sum(map(len, sets)) == len(set.union(*sets))
    kept = sum(count(result.songs[split]) for split in SPLITS)
    assert kept + sum(result.across.values()) == count(rated_songs) - len(rated_songs)
    assert EVERYONE not in people_of(itertools.chain(*result.songs.values()))
    sizes = {split: len(result.songs[split]) for split in SPLITS}
    assert sum(sizes.values()) == 40 and 2 <= sizes["validation"] <= 4 <= sizes["test"] <= 8
    for split in ("validation", "test"):
        counts = collections.Counter(r.annotator_id for s in result.songs[split] for r in s.ratings)
        assert min(counts.values()) >= 2


def test_a_split_depends_only_on_its_seed():
    first, again, other = (split_people(at_random(0), SplitRules(seed=s)) for s in (3, 3, 4))
    names = [[song.song_id for song in result.songs["test"]] for result in (first, again, other)]
    assert names[0] == names[1] != names[2]
    assert str(first) == str(again)


@pytest.mark.parametrize("seed", range(4))
def test_chains_of_neighboring_pairs_lose_few_ratings(seed):
    """Contiguous groups cut at most four of a chain's 39 links; a random split cuts half."""
    result = split_people(neighbors(), SplitRules(seed=seed))
    pairs = sum(count(result.songs[split]) for split in SPLITS) // 2
    lost = 39 * 10 - pairs
    assert lost <= 4 * 10
    assert len(result.songs["test"]) == 8 and len(people_of(result.songs["test"])) >= 60


def test_official_test_songs_stay_complete_and_their_raters_leave_training():
    rated_songs = at_random(1)

    def released(song):
        return "test" if int(song.song_id) >= 36 else "train"

    result = split_people(rated_songs, SplitRules(), released)
    expected = [song for song in rated_songs if released(song) == "test"]
    assert [song.song_id for song in result.songs["test"]] == [song.song_id for song in expected]
    assert people_of(result.songs["test"]) == people_of(expected) - {EVERYONE}
    assert count(result.songs["test"]) == count(expected) - len(expected)
    assert not people_of(result.songs["test"]) & people_of(result.songs["train"])
    assert set(result.across) <= {
        (who, what) for who in SPLITS for what in SPLITS if who != what and what != "test"
    }
    assert result.across["test", "train"] > 0
    assert "ratings by test annotators of train songs left out" in str(result)


def test_a_complete_official_split_is_kept():
    rated_songs = songs_of([["a"], ["a"], ["b"], ["c"]])
    names = dict(
        zip(["000", "001", "002", "003"], ["train", "train", "validation", "test"], strict=True)
    )
    result = split_people(rated_songs, SplitRules(), lambda song: names[song.song_id])
    assert {split: people_of(songs) for split, songs in result.songs.items()} == {
        "train": {"a"},
        "validation": {"b"},
        "test": {"c"},
    }
    assert not result.across and not result.notes


def test_without_official_test_songs_the_split_is_random_with_a_notice():
    result = split_songs(at_random(0, songs=10), SplitRules(), lambda song: "train")
    assert [len(result.songs[split]) for split in SPLITS] == [7, 1, 2]
    assert "no test songs of these 10 songs" in str(result)


def test_consensus_labels_are_split_by_song_only():
    rated_songs = at_random(0)
    rated_songs[3] = dataclasses.replace(rated_songs[3], ratings=rated_songs[3].ratings[:-1])
    result = split_songs(rated_songs, SplitRules(seed=1))
    assert people_of(itertools.chain(*result.songs.values())) == {EVERYONE}
    assert sum(len(songs) for songs in result.songs.values()) == 39
    assert not result.across
    for split in ("validation", "test"):
        assert {s.song_id for s in result.songs[split]} != {
            s.song_id for s in split_songs(rated_songs, SplitRules(seed=2)).songs[split]
        }


def test_too_few_songs_and_invalid_fractions_are_rejected():
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


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_recording_are_in_one_split(seed):
    """Copies stay together even where the released split separates them."""
    plain = at_random(seed)
    copies = [dataclasses.replace(song, recording=str(i % 25)) for i, song in enumerate(plain)]
    rules = SplitRules(seed=seed)

    def released(song):
        return "test" if int(song.song_id) >= 35 else "train"

    for result in (
        split_people(copies, rules),
        split_songs(copies, rules),
        split_people(copies, rules, released),
        split_songs(copies, rules, released),
    ):
        sets = [{song.recording for song in result.songs[split]} for split in SPLITS]
        assert sets[0] and sets[2] and sum(map(len, sets)) == len(set.union(*sets))
    in_test = {song.song_id for song in split_songs(copies, rules, released).songs["test"]}
    assert in_test == {f"{i:03d}" for i in (*range(10, 15), *range(35, 40))}


def test_copies_count_as_one_song():
    same = [dataclasses.replace(song, recording="a") for song in songs_of([["x"], ["y"], ["z"]])]
    with pytest.raises(UserError, match="1 songs have averaged ratings"):
        split_songs(same, SplitRules())
