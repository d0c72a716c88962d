"""Splicing of long songs: every segment once, from the window that the method names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.errors import UserError
from dsaml_jax.evaluation import splicing


@st.composite
def plans(draw):
    window = draw(st.integers(1, 70))
    return draw(st.integers(1, 200)), window, draw(st.integers(1, window))


def spliced_by_hand(length, window, hop):
    """The method in words, as a list of (start, position): first window whole, then last hops."""
    size = min(window, length)
    chosen = [(0, position) for position in range(size)]
    start = 0
    while len(chosen) < length:
        missing = length - len(chosen)
        start = min(start + hop, length - size)
        chosen += [(start, size - new) for new in range(min(hop, missing), 0, -1)]
    return chosen


@given(plans())
def test_every_segment_is_read_once_at_its_own_place(plan):
    length, window, _ = plan
    start, position = splicing.splice_plan(*plan)
    np.testing.assert_array_equal(start + position, np.arange(length))
    assert start.min() >= 0 and start.max() + min(window, length) == length
    assert position.min() >= 0 and position.max() < min(window, length)


@given(plans())
def test_plan_follows_the_method_in_words(plan):
    start, position = splicing.splice_plan(*plan)
    assert list(zip(start.tolist(), position.tolist(), strict=True)) == spliced_by_hand(*plan)


def test_the_end_that_no_hop_reaches_comes_from_the_window_that_ends_with_the_song():
    start, position = splicing.splice_plan(77, 60, 5)
    assert sorted(set(start.tolist())) == [0, 5, 10, 15, 17]
    assert position[60:].tolist() == [55, 56, 57, 58, 59] * 3 + [58, 59]


def released_by_hand(length, window, hop):
    """The segment whose value the release puts at each place: windows 1 + kh, then the rest."""
    size = min(window, length)
    read = list(range(size))
    if hop > 1:
        for start in range(hop + 1, length - window + 1, hop):
            read += range(start + window - hop, start + window)
    return read + list(range(len(read), length))


@given(plans())
def test_the_releases_plan_reads_inner_hops_one_segment_early(plan):
    start, position = splicing.released_splice_plan(*plan)
    assert (start + position).tolist() == released_by_hand(*plan)
    assert position.max() < min(plan[0], plan[1])
    np.testing.assert_array_equal(position, splicing.splice_plan(*plan)[1])


def test_the_releases_plan_of_the_golden_song():
    start, position = splicing.released_splice_plan(77, 60, 5)
    assert start[60:].tolist() == [6] * 5 + [11] * 5 + [16] * 5 + [17] * 2
    assert position[60:].tolist() == [55, 56, 57, 58, 59] * 3 + [58, 59]
    start, _ = splicing.released_splice_plan(70, 60, 5)
    assert start[60:].tolist() == [6] * 5 + [10] * 5


@given(plans(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_predict_song_equals_running_every_window(plan, batch, seed):
    length, window, hop = plan
    rng = np.random.default_rng(seed)
    log_mel, embedding = rng.normal(size=(length, 2, 3)), rng.normal(size=(1, 4))
    calls = []

    def model(windows, embeddings):
        calls.append((windows.shape, embeddings.shape))
        means = windows.mean(axis=(2, 3))
        context = np.cumsum(means, axis=1) + means.mean(axis=1, keepdims=True)
        return np.stack([context, context * embeddings.sum(axis=2)], axis=-1)

    hops = (hop, 1)
    found = splicing.predict_song(model, log_mel, embedding, window, hops, batch)
    size = min(window, length)
    assert set(calls) == {((batch, size, 2, 3), (batch, 1, 4))}
    used = {start for h in hops for start, _ in spliced_by_hand(length, window, h)}
    assert len(calls) == -(-len(used) // batch)
    for dimension, h in enumerate(hops):
        expected = [
            model(log_mel[None, start : start + size], embedding[None])[0, position, dimension]
            for start, position in spliced_by_hand(length, window, h)
        ]
        np.testing.assert_allclose(found[:, dimension], expected, atol=1e-12)


def test_a_model_without_context_gives_back_the_song():
    curve = np.random.default_rng(0).normal(size=(77, 2))
    seen = []

    def model(windows, embeddings):
        seen.extend(windows[:, 0, 0, 0])
        return windows[:, :, 0]

    found = splicing.predict_song(model, curve[:, None], np.zeros((1, 1)), hops=(20, 5), batch=4)
    np.testing.assert_array_equal(found, curve)
    assert set(seen) == {curve[start, 0] for start in (0, 5, 10, 15, 17)}


def test_embeddings_of_segments_are_cut_like_the_spectrograms():
    length = 20
    log_mel = np.arange(length, dtype=float)[:, None, None]
    embedding = np.arange(length, dtype=float)[:, None]

    def model(windows, embeddings):
        np.testing.assert_array_equal(windows[..., 0], embeddings)
        return np.concatenate([embeddings, -embeddings], axis=-1)

    found = splicing.predict_song(model, log_mel, embedding, window=6, hops=(4, 1), batch=3)
    np.testing.assert_array_equal(found, np.arange(length)[:, None] * [1, -1])


def test_bad_songs_and_hops_are_refused():
    def never(windows, embeddings):
        raise AssertionError("no window is to be run")

    with pytest.raises(UserError, match="no segment"):
        splicing.predict_song(never, np.zeros((0, 2, 3)), np.zeros((1, 4)))
    with pytest.raises(UserError, match="8 segments and 3 embeddings"):
        splicing.predict_song(never, np.zeros((8, 2, 3)), np.zeros((3, 4)))
    with pytest.raises(UserError, match="hop is 61"):
        splicing.predict_song(never, np.zeros((80, 2, 3)), np.zeros((1, 4)), hops=(61, 1))
    with pytest.raises(ValueError, match="windows are missing"):
        plans = [splicing.splice_plan(77, 60, 5)] * 2
        splicing.splice(np.zeros((2, 60, 2)), np.array([0, 5]), plans)
