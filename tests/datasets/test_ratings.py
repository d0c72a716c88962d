"""The mean of several annotators, and the filters of the release."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.datasets import filters, ratings
from dsaml_jax.datasets.filters import RatingFilter
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song


def song(song_id, *rated):
    return Song(song_id, 45.0, 15.0, tuple(rated))


def moving(name, size=0.2, length=60):
    curve = size * np.resize([1.0, -1.0], length)
    return Rating(name, np.stack([curve, curve], 1).astype(np.float32))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 2**31))
def test_the_consensus_is_the_mean_while_half_of_them_rate(lengths, seed):
    rng = np.random.default_rng(seed)
    people = [
        Rating(str(i), rng.uniform(-1, 1, (n, 2)).astype(np.float32)) for i, n in enumerate(lengths)
    ]
    mean = ratings.consensus(people)
    assert mean.annotator_id == EVERYONE
    for step in range(max(lengths)):
        present = [rating.curve[step] for rating in people if len(rating.curve) > step]
        if 2 * len(present) >= len(people):
            np.testing.assert_allclose(mean.curve[step], np.mean(present, axis=0), atol=1e-6)
        else:
            assert len(mean.curve) <= step
    assert len(mean.curve) in lengths


def test_deviation_is_the_mean_distance_from_the_mean():
    curve = np.array([[0.0, 0.1], [1.0, 0.1], [0.5, 9.0]])
    np.testing.assert_allclose(filters.deviation(curve, 2), [0.5, 0.0])


@pytest.mark.parametrize(("size", "kept"), [(0.0099, 0), (0.0101, 1)])
def test_flat_in_either_dimension_is_dropped(size, kept):
    rating = moving("a")
    for dimension in (0, 1):
        curve = rating.curve.copy()
        curve[:, dimension] *= size / 0.2
        songs, counts = filters.apply(
            [song("1", Rating("a", curve))], RatingFilter(more_songs_than=0)
        )
        assert (len(songs), counts.flat, counts.annotators, counts.songs) == (
            kept,
            1 - kept,
            1 - kept,
            1 - kept,
        )


def test_only_the_first_values_count():
    curve = np.concatenate([np.zeros((60, 2)), np.ones((60, 2))]).astype(np.float32)
    songs, counts = filters.apply(
        [song("1", Rating("a", curve), moving("b"))], RatingFilter(more_songs_than=0)
    )
    assert [rating.annotator_id for rating in songs[0].ratings] == ["b"]
    assert counts == filters.FilterCounts(flat=1, rare=0, annotators=1, songs=0)


def test_rare_annotators_are_counted_after_flat_ratings_are_gone():
    songs = [song(str(i), moving("sixteen"), moving("fifteen")) for i in range(15)]
    songs += [song("15", moving("sixteen"), moving("fifteen", size=0.0))]
    kept, counts = filters.apply(songs, RatingFilter())
    assert {rating.annotator_id for s in kept for rating in s.ratings} == {"sixteen"}
    assert counts == filters.FilterCounts(flat=1, rare=15, annotators=1, songs=0)


def test_the_aggregate_always_passes_and_nothing_is_changed():
    songs = [song("1", moving(EVERYONE, size=0.0), moving("a")), song("2", moving("a"))]
    kept, counts = filters.apply(songs, RatingFilter())
    assert [s.song_id for s in kept] == ["1"]
    assert [rating.annotator_id for rating in kept[0].ratings] == [EVERYONE]
    assert counts == filters.FilterCounts(flat=0, rare=2, annotators=1, songs=1)
    assert len(songs[0].ratings) == 2
    everything, none = filters.apply(songs, RatingFilter(least_deviation=0, more_songs_than=0))
    assert everything == songs
    assert none == filters.FilterCounts(0, 0, 0, 0)
