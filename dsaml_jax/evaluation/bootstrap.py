"""How sure a mean over annotators is: bootstrap intervals.

The annotators are the sample, since new annotators are whom a result shall hold for; an
annotator's songs stay together. Percentile bootstrap (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13): draw A of the A annotators with replacement, take the mean, repeat, and
read off the quantiles. With few annotators, say under 15, such intervals are a little too narrow.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_CHUNK = 2**22
"""Draws held in memory at a time."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
      mean: over the annotators that have a value; None where nobody has.
      low, high: ends of the interval; None with fewer than two annotators, where it is unknown.
    """

    mean: float | None
    low: float | None
    high: float | None

    def excludes_zero(self) -> bool:
        """Whether the interval is known and lies on one side of zero."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def bootstrap(
    values: np.ndarray, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """The mean of one value per annotator, with its percentile interval.

    Args:
      values: [A]; NaN where an annotator has none.
      seed: the same seed and number of annotators give the same draws.
      resamples: number of draws.
      level: confidence level, in (0, 1).
    """
    return bootstrap_columns(np.asarray(values)[:, None], seed, resamples, level)[0]


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """The mean of a - b over the annotators that have both, with its percentile interval.

    Annotators differ far more than methods do; the difference within each takes that out.

    Args:
      a, b: [A], the same annotators in the same order; NaN where one has none.
      seed, resamples, level: of `bootstrap`.
    """
    return bootstrap(np.asarray(a, np.float64) - np.asarray(b, np.float64), seed, resamples, level)


def bootstrap_columns(
    values: np.ndarray, seed: int, resamples: int = 10_000, level: float = 0.95
) -> list[Interval]:
    """`bootstrap` of every column at once; columns that lack the same annotators share draws.

    Args:
      values: [A, M], M quantities of the A annotators; NaN where an annotator has none.
      seed, resamples, level: of `bootstrap`.

    Returns:
      One interval a column, equal to `bootstrap` of that column.
    """
    values = np.asarray(values, np.float64)
    if not 0 < level < 1:
        raise ValueError(f"the confidence level is {level}, expected a number between 0 and 1")
    tails = [(1 - level) / 2, (1 + level) / 2]
    defined = ~np.isnan(values)
    intervals: list[Interval] = [Interval(None, None, None)] * values.shape[1]
    for pattern in np.unique(defined, axis=1).T:
        columns = np.flatnonzero((defined == pattern[:, None]).all(axis=0))
        sample = values[np.ix_(pattern, columns)]
        if len(sample) == 0:
            continue
        low, high = [None] * len(columns), [None] * len(columns)
        if len(sample) > 1:
            low, high = np.quantile(_resampled_means(sample, seed, resamples), tails, axis=0)
        for i, column in enumerate(columns):
            intervals[column] = Interval(
                float(sample[:, i].mean()), _number(low[i]), _number(high[i])
            )
    return intervals


def _resampled_means(sample: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means [resamples, M] of draws with replacement from the rows of `sample` [A, M]."""
    rng = np.random.default_rng(seed)
    people = len(sample)
    size = max(1, _CHUNK // people)
    means = []
    for start in range(0, resamples, size):
        draws = rng.integers(people, size=(min(size, resamples - start), people))
        # How often each annotator was drawn; the mean is then one matrix product for all columns.
        cells = draws + people * np.arange(len(draws))[:, None]
        times = np.bincount(cells.ravel(), minlength=draws.size).reshape(draws.shape)
        means.append(times @ sample / people)
    return np.concatenate(means)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
