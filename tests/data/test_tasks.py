"""Corpora, training draws and fixed episodes."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.data.corpus import build_corpus
from dsaml_jax.data.loading import check_disjoint
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.data.tasks import check_tasks, draw_tasks, fixed_episodes
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError

SEGMENTS = 4


def curve_of(name: str, song: int) -> np.ndarray:
    return np.full((SEGMENTS, 2), (ord(name[0]) - 97) / 100 + song / 10, np.float32)


def corpus_of(rated: dict[str, list[int]], songs: int = 9, min_songs: int = 1, seed: int = 0):
    """Builds a corpus from {annotator: songs}; each curve identifies its annotator and song."""
    rng = np.random.default_rng(seed)
    made = [
        Song(
            song_id=f"song {i}",
            duration_s=10.0,
            ratings_start_s=0.0,
            ratings=(
                *(Rating(name, curve_of(name, i)) for name, theirs in rated.items() if i in theirs),
                Rating(EVERYONE, np.zeros((SEGMENTS, 2), np.float32)),
            ),
        )
        for i in range(songs)
    ]
    features = [
        SongFeatures(
            np.full((SEGMENTS, 3, 2), i, np.float32),
            rng.normal(size=(1, 5)).astype(np.float32),
            np.zeros(1, int),
        )
        for i in range(songs)
    ]
    return build_corpus(made, features, segments=SEGMENTS, min_songs=min_songs, source="here")


RATED = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.lists(st.integers(0, 8), min_size=3, max_size=9, unique=True),
    min_size=3,
)


@settings(max_examples=8)
@given(RATED, st.integers(1, 2), st.integers(1, 6), st.integers(0, 99))
def test_draws_are_of_one_annotator_and_disjoint(rated, support, query, seed):
    corpus = corpus_of(rated)
    draw = draw_tasks(
        jax.random.key(seed), corpus.tables, meta_batch=3, support=support, query=query
    )
    assert len(set(np.asarray(draw.annotator).tolist())) == 3
    owner = np.asarray(corpus.tables.annotator_of)
    for annotator, first, then in zip(*map(np.asarray, draw), strict=True):
        assert (owner[first] == annotator).all() and (owner[then] == annotator).all()
        assert len(set(first.tolist())) == support
        assert not set(first.tolist()) & set(then.tolist())
        if corpus.tables.counts[annotator] - support >= query:
            assert len(set(then.tolist())) == query


def test_a_draw_depends_on_its_key_alone():
    tables = corpus_of({"a": [0, 1, 2], "b": [1, 2, 3, 4], "c": [0, 5, 6]}).tables
    draw = jax.jit(lambda key: draw_tasks(key, tables, meta_batch=2, support=1, query=2))
    first, again, other = (draw(jax.random.key(seed)) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert any(not np.array_equal(x, y) for x, y in zip(first, other, strict=True))


def test_every_annotator_and_song_is_drawn_in_time():
    corpus = corpus_of({"a": [0, 1, 2], "b": [1, 2, 3, 4], "c": [0, 5, 6]})
    keys = jax.random.split(jax.random.key(0), 200)
    draws = jax.vmap(lambda key: draw_tasks(key, corpus.tables, meta_batch=2, support=1, query=2))(
        keys
    )
    np.testing.assert_allclose(np.bincount(draws.annotator.ravel()), 400 / 3, rtol=0.2)
    for ratings in (draws.support, draws.query):
        assert set(np.asarray(ratings).ravel().tolist()) == set(range(10))


def test_a_batch_is_the_annotators_clips():
    corpus = corpus_of({"a": [2, 5], "b": [5, 7]})
    rating = int(corpus.tables.ratings_of[1, 0])
    batch = corpus.tables.batch(np.array([rating]), {})
    np.testing.assert_array_equal(batch.log_mel, np.full((1, SEGMENTS, 3, 2), 5))
    np.testing.assert_allclose(batch.curve, np.full((1, SEGMENTS, 2), 0.51))


@settings(max_examples=25)
@given(RATED, st.integers(1, 2), st.integers(1, 4), st.integers(0, 9))
def test_episodes_are_sound(rated, support, query, seed):
    corpus = corpus_of(rated)
    episodes = fixed_episodes(corpus, support=support, episodes=3, query=query, seed=seed)
    owner, song = np.asarray(corpus.tables.annotator_of), np.asarray(corpus.tables.song_of)
    assert set(episodes.annotator.tolist()) == set(range(len(corpus.annotator_ids)))
    taken = set()
    for annotator, first, then, tested, control, same in zip(*episodes, strict=True):
        assert (owner[first] == annotator).all() and (owner[then] == annotator).all()
        assert not set(first.tolist()) & set(then.tolist())
        assert len(set(then[tested].tolist())) == tested.sum() >= 1
        assert not set(first.tolist()) & taken, "supports of one annotator overlap"
        taken |= set(first.tolist())
        assert (owner[control] != annotator).all()
        if same:
            np.testing.assert_array_equal(song[control], song[first])
            assert len(set(owner[control].tolist())) == 1
    again = fixed_episodes(corpus, support=support, episodes=3, query=query, seed=seed)
    jax.tree.map(np.testing.assert_array_equal, episodes, again)


def test_raters_of_two_songs_are_tested_both_ways():
    corpus = corpus_of({"a": [0, 1], "b": [1, 2], "c": [0, 2]}, min_songs=2)
    episodes = fixed_episodes(corpus, support=1, episodes=2, query=1, seed=0)
    assert len(episodes.annotator) == 6 and episodes.tested.all()
    pairs = zip(episodes.support[:, 0].tolist(), episodes.query[:, 0].tolist(), strict=True)
    ways = set(pairs)
    assert len(ways) == 6 and ways == {(query, support) for support, query in ways}


def test_scaling_is_of_the_training_songs_and_leaves_no_constant():
    corpus = corpus_of({"a": [0, 1], "b": [0, 1]})
    embedding = np.array(corpus.tables.embedding)
    embedding[:, 2] = 7.0
    corpus = dataclasses.replace(corpus, tables=corpus.tables._replace(embedding=embedding))
    scaled = np.asarray(corpus.scaled(Scaling.of(embedding)).tables.embedding)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0, 1, 1], atol=1e-5)


def test_annotators_with_few_songs_are_left_out_and_counted():
    corpus = corpus_of({"a": [0], "b": [0, 1, 2], "c": [1, 2]}, min_songs=2)
    assert corpus.annotator_ids == ("b", "c")
    assert corpus.left_out == {"a": 1}
    assert "left out: 1 annotators with too few songs, 1 ratings" in str(corpus)


def test_bad_ratings_are_refused_by_name():
    curve = np.zeros((SEGMENTS, 2), np.float32)
    broken = curve.copy()
    broken[2, 1] = np.nan
    feature = SongFeatures(
        np.zeros((SEGMENTS, 3, 2), np.float32), np.zeros((1, 5), np.float32), np.zeros(1, int)
    )

    def build(*ratings):
        song = Song("song 7", 10.0, 0.0, ratings)
        return build_corpus([song], [feature], segments=SEGMENTS, min_songs=1, source="here")

    with pytest.raises(UserError, match="song 7 by annotator a is not a finite number in row 2"):
        build(Rating("a", broken))
    with pytest.raises(UserError, match="annotator a rated song song 7 2 times"):
        build(Rating("a", curve), Rating("a", curve))
    short = build(Rating("a", curve[:3]))
    np.testing.assert_array_equal(short.tables.valid, [[True, True, True, False]])


def test_what_cannot_be_drawn_is_refused():
    corpus = corpus_of({"a": [0, 1], "b": [0, 1, 2]})
    with pytest.raises(UserError, match="there are only 2"):
        check_tasks(corpus, meta_batch=3, support=1, source="here")
    with pytest.raises(UserError, match=r"a rated 2.*raise data.min_songs to 3"):
        check_tasks(corpus, meta_batch=2, support=2, source="here")
    with pytest.raises(UserError, match="the most active rated 3"):
        corpus_of({"a": [0, 1], "b": [0, 1, 2]}, min_songs=4)
    with pytest.raises(UserError, match="song song 0 is in both train and test"):
        check_disjoint({"train": corpus, "test": corpus})
