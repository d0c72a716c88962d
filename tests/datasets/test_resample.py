"""Resampling of ratings to two per second."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.datasets import resample

seeds = st.integers(0, 2**31)


def curve(seed, n):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 2))


@given(seeds, st.integers(1, 80))
def test_curves_at_2_hz_are_unchanged(seed, n):
    values = curve(seed, n)
    np.testing.assert_allclose(resample.from_rate(values, 2.0), values, atol=1e-6)


@given(seeds, st.integers(5, 400))
def test_curves_at_10_hz_give_means_of_five(seed, n):
    values = curve(seed, n)
    whole = n // 5
    expected = values[: whole * 5].reshape(whole, 5, 2).mean(1)
    result = resample.from_rate(values, 10.0)
    assert result.shape == (whole, 2) and result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


@given(seeds, st.integers(1, 60), st.integers(1, 300))
def test_bars_keep_their_time_average_and_range(seed, n, half_seconds):
    values = curve(seed, n)
    result = resample.from_bars(values, half_seconds / 2)
    assert len(result) == half_seconds
    np.testing.assert_allclose(result.mean(0), values.mean(0), atol=1e-5)
    assert np.all(result >= np.float32(values.min(0)))
    assert np.all(result <= np.float32(values.max(0)))


def test_bars_are_weighted_by_their_share_of_the_half_second():
    # Bars of 0.75 s: the second half second has 0.25 s of bar 0 and 0.25 s of bar 1.
    result = resample.from_bars(np.array([[0.0, 1.0], [1.0, -1.0]]), 1.5)
    np.testing.assert_allclose(result, [[0, 1], [0.5, 0], [1, -1]], atol=1e-7)


def test_an_incomplete_last_half_second_is_dropped():
    assert len(resample.from_rate(np.zeros((14, 2)), 10.0)) == 2
    assert len(resample.from_rate(np.zeros((4, 2)), 10.0)) == 0
    # 0.1 + 0.1 + ... is below 0.5 in floating point and must still fill the half second.
    assert len(resample.half_second_means(np.cumsum([0.0] + [0.1] * 5), np.zeros((5, 2)))) == 1


def test_intervals_need_not_start_at_zero():
    edges = np.array([15.0, 15.25, 16.0])
    result = resample.half_second_means(edges, np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(result, [[0.5], [1.0]], atol=1e-7)


@pytest.mark.parametrize("edges", [[0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
def test_edges_must_match_the_values_and_increase(edges):
    with pytest.raises(ValueError):
        resample.half_second_means(np.array(edges), np.zeros((2, 2)))
