"""Splicing of long songs: every segment once, from the window that the method names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.errors import UserError
from dsaml_jax.evaluation import splicing
from dsaml_jax.evaluation.windows import map_windows


@st.composite
def plans(draw):
    window = draw(st.integers(1, 70))
    return draw(st.integers(1, 200)), window, draw(st.integers(1, window))


def spliced_by_hand(length, window, hop):
    """Splices step by step: a list of (start, position), the first window whole, then last hops."""
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
    """Lists the segment that the release reads for each place: windows 1 + kh, then the rest."""
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


def predict(model, log_mel, window, hops, batch):
    """Predicts the curve of one song with a model of windows [W, S, ...]."""
    plan = splicing.song_windows(len(log_mel), window, hops)
    segments = plan.starts[:, None] + np.arange(min(window, len(log_mel)))
    curves = map_windows(lambda rows: model(log_mel[segments[rows]]), len(plan.starts), batch)
    return splicing.splice(curves, plan.window, plan.position)


@given(plans(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_song_windows_equal_running_every_window(plan, batch, seed):
    length, window, hop = plan
    rng = np.random.default_rng(seed)
    log_mel, embedding = rng.normal(size=(length, 2, 3)), rng.normal(size=4)
    calls = []

    def model(windows):
        calls.append(windows.shape)
        means = windows.mean(axis=(2, 3))
        context = np.cumsum(means, axis=1) + means.mean(axis=1, keepdims=True)
        return np.stack([context, context * embedding.sum()], axis=-1)

    hops = (hop, 1)
    curve = predict(model, log_mel, window, hops, batch)
    size = min(window, length)
    assert set(calls) == {(batch, size, 2, 3)}
    used = {start for h in hops for start, _ in spliced_by_hand(length, window, h)}
    assert len(calls) == -(-len(used) // batch)
    for dimension, h in enumerate(hops):
        expected = [
            model(log_mel[None, start : start + size])[0, position, dimension]
            for start, position in spliced_by_hand(length, window, h)
        ]
        np.testing.assert_allclose(curve[:, dimension], expected, atol=1e-12)


def test_a_model_without_context_gives_back_the_song():
    song = np.random.default_rng(0).normal(size=(77, 2))
    seen = []

    def model(windows):
        seen.extend(windows[:, 0, 0, 0])
        return windows[:, :, 0]

    curve = predict(model, song[:, None], 60, (20, 5), batch=4)
    np.testing.assert_array_equal(curve, song)
    assert set(seen) == {song[start, 0] for start in (0, 5, 10, 15, 17)}


def test_windows_are_listed_once_in_order():
    plan = splicing.song_windows(20, 6, (4, 1))
    np.testing.assert_array_equal(plan.starts, np.arange(15))
    np.testing.assert_array_equal(
        plan.starts[plan.window] + plan.position, np.arange(20)[:, None] * [1, 1]
    )


def test_bad_songs_and_hops_are_refused():
    with pytest.raises(UserError, match="no segment"):
        splicing.song_windows(0, 60)
    with pytest.raises(UserError, match="hop is 61"):
        splicing.song_windows(80, 60, (61, 1))
