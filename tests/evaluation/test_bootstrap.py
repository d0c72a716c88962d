"""Bootstrap intervals: coverage, pairing, and too few annotators."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.evaluation import bootstrap
from dsaml_jax.evaluation.bootstrap import Interval

seeds = st.integers(0, 2**32 - 1)


def interval(values, seed, **options):
    """Computes the interval of a single column [A]."""
    return bootstrap.bootstrap_columns(values[:, None], seed, **options)[0]


def test_intervals_have_about_their_nominal_coverage():
    rng = np.random.default_rng(0)
    columns = rng.normal(0.2, 1.0, (40, 600))
    intervals = bootstrap.bootstrap_columns(columns, seed=1, resamples=1000)
    covered = np.mean([ends.low <= 0.2 <= ends.high for ends in intervals])
    # 0.95 minus the undercoverage of percentile intervals at n = 40; 3 sd of 600 trials.
    assert 0.91 < covered < 0.97


def test_intervals_of_large_samples_agree_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(0.3, 0.2, 400)
    result = interval(values, seed=0)
    half = 1.96 * values.std() / 20
    assert result.mean == pytest.approx(values.mean())
    assert result.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert result.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_pairing_removes_the_variance_between_annotators():
    rng = np.random.default_rng(0)
    person, gain = rng.normal(0, 1, 30), rng.normal(0.05, 0.02, 30)
    paired = interval(person + gain - person, seed=0)
    assert paired.excludes_zero() and paired.low > 0
    alone = interval(person + gain, seed=0)
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


@given(seeds, st.integers(2, 30))
def test_identical_rows_differ_by_exactly_zero(seed, people):
    values = np.random.default_rng(seed).normal(size=people)
    result = interval(values - values.copy(), seed=seed, resamples=100)
    assert result == Interval(0.0, 0.0, 0.0)
    assert not result.excludes_zero()


@given(seeds)
def test_swapping_the_rows_mirrors_the_interval(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 9))
    forward = interval(a - b, seed=3, resamples=200)
    swapped = interval(b - a, seed=3, resamples=200)
    assert (forward.mean, forward.low, forward.high) == pytest.approx(
        (-swapped.mean, -swapped.high, -swapped.low), abs=1e-12
    )
    assert forward.low <= forward.mean <= forward.high


@given(seeds)
def test_columns_equal_single_bootstraps_without_undefined_annotators(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(8, 5))
    values[rng.random((8, 5)) < 0.3] = np.nan
    together = bootstrap.bootstrap_columns(values, seed=seed, resamples=50)
    for column, joint in zip(values.T, together, strict=True):
        alone = interval(column[~np.isnan(column)], seed=seed, resamples=50)
        assert (joint.mean is None) == np.isnan(column).all()
        if joint.low is None:
            assert joint == alone and (~np.isnan(column)).sum() < 2
        else:
            np.testing.assert_allclose(
                [joint.mean, joint.low, joint.high], [alone.mean, alone.low, alone.high]
            )


def test_intervals_depend_on_the_seed_and_not_on_the_chunk_size(monkeypatch):
    values = np.random.default_rng(0).normal(size=12)
    first = interval(values, seed=0, resamples=500)
    assert first == interval(values, seed=0, resamples=500)
    assert first != interval(values, seed=1, resamples=500)
    monkeypatch.setattr(bootstrap, "_CHUNK", 60)
    assert interval(values, seed=0, resamples=500) == first


def test_too_few_annotators_have_no_interval():
    nobody, one = np.array([np.nan, np.nan]), np.array([np.nan, 0.4])
    assert interval(nobody, seed=0) == Interval(None, None, None)
    assert interval(np.zeros(0), seed=0) == Interval(None, None, None)
    assert interval(one, seed=0) == Interval(0.4, None, None)
    assert interval(one - np.array([1.0, 0.1]), seed=0).mean == pytest.approx(0.3)
    assert not interval(one, seed=0).excludes_zero()


def test_wider_levels_give_wider_intervals():
    values = np.random.default_rng(0).normal(size=20)
    narrow, wide = (interval(values, seed=0, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ValueError, match="level is 95"):
        interval(values, seed=0, level=95)


def test_a_ratio_of_means_scales_and_has_about_its_nominal_coverage():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(300):
        below = rng.normal(1.0, 0.5, 40)
        above = 0.3 * below + rng.normal(0, 0.2, 40)
        result = bootstrap.bootstrap_ratio(above, below, seed, resamples=500)
        covered.append(result.low <= 0.3 <= result.high)
    assert 0.90 < np.mean(covered) < 0.98
    assert result.mean == pytest.approx(above.mean() / below.mean())
    doubled = bootstrap.bootstrap_ratio(2 * above, below, seed, resamples=500)
    assert doubled == Interval(2 * result.mean, 2 * result.low, 2 * result.high)


def test_a_ratio_pairs_its_draws_and_leaves_out_annotators_without_a_value():
    below = np.random.default_rng(0).uniform(0.1, 1, 30)
    ratio = bootstrap.bootstrap_ratio(0.25 * below, below, seed=0)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((0.25, 0.25, 0.25))
    above, more = np.append(0.25 * below, [5.0, np.nan]), np.append(below, [np.nan, 5.0])
    assert bootstrap.bootstrap_ratio(above, more, seed=0) == ratio


def test_a_ratio_to_nothing_is_unknown():
    ones, spread = np.ones(9), np.linspace(-1, 1.2, 9)
    assert bootstrap.bootstrap_ratio(ones, -ones, seed=0) == Interval(None, None, None)
    assert bootstrap.bootstrap_ratio(ones, spread, seed=0).low is None
    assert bootstrap.bootstrap_ratio(ones[:1], ones[:1], seed=0) == Interval(1.0, None, None)
    empty = np.full(3, np.nan)
    assert bootstrap.bootstrap_ratio(empty, empty, seed=0) == Interval(None, None, None)
