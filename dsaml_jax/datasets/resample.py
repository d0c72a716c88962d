"""Resampling of ratings from any rate to two per second."""

from __future__ import annotations

import numpy as np

from dsaml_jax.datasets.schema import RATING_HZ

_SLACK = 1e-6  # half seconds; absorbs rounding errors such as those of n / 10 Hz


def half_second_means(edges_s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the mean of a step function over each whole half second.

    A source value is held over its own interval: x(t) = values[j] for edges[j] <= t < edges[j+1].
    Output i is the mean of x over the half second that starts i / 2 seconds after edges[0],

        y_i = 2 ∫ x(t) dt,  t from edges[0] + i/2 to edges[0] + (i+1)/2,

    so a 10 Hz curve gives means of five values, values per bar are weighted by their duration, and
    a 2 Hz curve is returned unchanged. A remainder that does not fill a half second is dropped: no
    value is extrapolated past the last one.

    Args:
      edges_s: [n + 1] bounds of the source intervals in seconds, increasing.
      values: [n, d] source values.

    Returns:
      [m, d] float32, m = floor(2 (edges[n] - edges[0])).
    """
    edges = np.asarray(edges_s, np.float64) * RATING_HZ
    values = np.asarray(values, np.float64)
    if edges.shape != (len(values) + 1,) or values.ndim != 2:
        raise ValueError(f"edges {edges.shape} do not enclose values {values.shape}")
    if np.any(np.diff(edges) <= 0):
        raise ValueError("edges must increase")
    edges = edges - edges[0]
    steps = int(np.floor(edges[-1] + _SLACK))
    integral = np.concatenate(
        [np.zeros((1, values.shape[1])), np.cumsum(values * np.diff(edges)[:, None], axis=0)]
    )
    grid = np.arange(steps + 1.0)
    at_grid = np.stack([np.interp(grid, edges, column) for column in integral.T], axis=1)
    means = np.diff(at_grid, axis=0)
    # Rounding errors of the cumulative sum must not move a value out of the source's range.
    return np.clip(means, values.min(0), values.max(0)).astype(np.float32)


def from_rate(values: np.ndarray, hz: float) -> np.ndarray:
    """Resamples [n, d] values, each held for 1 / hz seconds, to half-second means."""
    return half_second_means(np.arange(len(values) + 1) / hz, values)


def from_bars(values: np.ndarray, duration_s: float) -> np.ndarray:
    """Resamples [n, d] values of n equally long bars that last `duration_s` seconds in total."""
    return half_second_means(np.linspace(0.0, duration_s, len(values) + 1), values)
