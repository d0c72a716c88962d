"""Bootstrap confidence intervals of means over annotators.

Results should generalize to new annotators, so annotators are the bootstrap unit, and each keeps
all of their songs. The intervals are percentile bootstraps (Efron & Tibshirani, An Introduction to
the Bootstrap, 1993, ch. 13): draw A of the A annotators with replacement, take the mean, repeat,
and read off the quantiles. With few annotators, say under 15, they are slightly too narrow.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_CHUNK = 2**22
"""Number of drawn annotators held in memory at a time."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
      mean: over the annotators that have a value; None if none has.
      low, high: ends of the interval; None with fewer than two annotators, where it is unknown.
    """

    mean: float | None
    low: float | None
    high: float | None

    def excludes_zero(self) -> bool:
        """Whether the interval is known and lies on one side of zero."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


def bootstrap_columns(
    values: np.ndarray, seed: int, resamples: int = 10_000, level: float = 0.95
) -> list[Interval]:
    """Computes the mean of every column with its percentile interval.

    Columns that lack the same annotators share their draws. Pass differences between two methods to
    compare them: annotators differ far more than methods do, and pairing removes that.

    Args:
      values: [A, M], M quantities of A annotators; NaN where an annotator has no value.
      seed: the same seed and number of annotators give the same draws.
      resamples: number of draws.
      level: confidence level, in (0, 1).

    Returns:
      One interval per column.
    """
    values = np.asarray(values, np.float64)
    if not 0 < level < 1:
        raise ValueError(f"the confidence level is {level}, expected a number between 0 and 1")
    tails = [(1 - level) / 2, (1 + level) / 2]
    defined = ~np.isnan(values)
    intervals = [Interval(None, None, None)] * values.shape[1]
    for pattern in np.unique(defined, axis=1).T:
        columns = np.flatnonzero((defined == pattern[:, None]).all(axis=0))
        sample = values[np.ix_(pattern, columns)]
        if len(sample) == 0:
            continue
        if len(sample) == 1:
            ends = [(None, None)] * len(columns)
        else:
            quantiles = np.quantile(_resampled_means(sample, seed, resamples), tails, axis=0)
            ends = quantiles.T.tolist()
        for i, (low, high) in enumerate(ends):
            intervals[columns[i]] = Interval(float(sample[:, i].mean()), low, high)
    return intervals


def bootstrap_ratio(
    numerator: np.ndarray,
    denominator: np.ndarray,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Computes the ratio of two means with its percentile interval; each draw takes both means.

    Args:
      numerator: [A]; annotators without a value (NaN) in either are left out of both.
      denominator: [A].
      seed: as for `bootstrap_columns`.
      resamples: number of draws.
      level: confidence level, in (0, 1).

    Returns:
      The ratio and its interval. All are None unless the denominator's mean is above 0; the
      interval is None if a share of draws that could move its ends has no such mean.
    """
    pairs = np.stack([numerator, denominator], axis=1).astype(np.float64)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if len(pairs) == 0 or pairs[:, 1].mean() <= 0:
        return Interval(None, None, None)
    ratio = float(pairs[:, 0].mean() / pairs[:, 1].mean())
    above, below = _resampled_means(pairs, seed, resamples).T
    if len(pairs) == 1 or (below <= 0).mean() >= (1 - level) / 2:
        return Interval(ratio, None, None)
    defined = below > 0
    ends = np.quantile(above[defined] / below[defined], [(1 - level) / 2, (1 + level) / 2])
    return Interval(ratio, *ends.tolist())


def _resampled_means(sample: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Computes the means [resamples, M] of draws with replacement from the rows of [A, M]."""
    rng = np.random.default_rng(seed)
    annotators = len(sample)
    size = max(1, _CHUNK // annotators)
    means = []
    for start in range(0, resamples, size):
        draws = rng.integers(annotators, size=(min(size, resamples - start), annotators))
        # Count how often each annotator was drawn; the means of all columns are then one matrix
        # product.
        cells = draws + annotators * np.arange(len(draws))[:, None]
        counts = np.bincount(cells.ravel(), minlength=draws.size).reshape(draws.shape)
        means.append(counts @ sample / annotators)
    return np.concatenate(means)
