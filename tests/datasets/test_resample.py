"""Resampling of ratings to two a second."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.datasets import resample

seeds = st.integers(0, 2**31)


def curve(seed, n):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 2))


@given(seeds, st.integers(1, 80))
def test_two_a_second_comes_back_unchanged(seed, n):
    values = curve(seed, n)
    np.testing.assert_allclose(resample.from_rate(values, 2.0), values, atol=1e-6)


@given(seeds, st.integers(5, 400))
def test_ten_a_second_gives_means_of_five(seed, n):
    values = curve(seed, n)
    whole = n // 5
    expected = values[: whole * 5].reshape(whole, 5, 2).mean(1)
    got = resample.from_rate(values, 10.0)
    assert got.shape == (whole, 2) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


@given(seeds, st.integers(1, 60), st.integers(1, 300))
def test_bars_keep_their_mean_over_time_and_their_range(seed, n, half_seconds):
    values = curve(seed, n)
    got = resample.from_bars(values, half_seconds / 2)
    assert len(got) == half_seconds
    np.testing.assert_allclose(got.mean(0), values.mean(0), atol=1e-5)
    assert np.all(got >= np.float32(values.min(0))) and np.all(got <= np.float32(values.max(0)))


def test_a_bar_is_weighted_by_the_time_it_holds():
    # Bars of 0.75 s: the second half second holds 0.25 s of bar 0 and 0.25 s of bar 1.
    got = resample.from_bars(np.array([[0.0, 1.0], [1.0, -1.0]]), 1.5)
    np.testing.assert_allclose(got, [[0, 1], [0.5, 0], [1, -1]], atol=1e-7)


def test_a_tail_that_fills_no_half_second_is_left_out():
    assert len(resample.from_rate(np.zeros((14, 2)), 10.0)) == 2
    assert len(resample.from_rate(np.zeros((4, 2)), 10.0)) == 0
    # 0.1 + 0.1 + ... falls short of 0.5 in floating point and must still fill it.
    assert len(resample.half_second_means(np.cumsum([0.0] + [0.1] * 5), np.zeros((5, 2)))) == 1


def test_intervals_need_not_start_at_zero():
    edges = np.array([15.0, 15.25, 16.0])
    got = resample.half_second_means(edges, np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(got, [[0.5], [1.0]], atol=1e-7)


@pytest.mark.parametrize("edges", [[0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
def test_edges_must_enclose_the_values_and_rise(edges):
    with pytest.raises(ValueError):
        resample.half_second_means(np.array(edges), np.zeros((2, 2)))
