"""Ratings at any rate, brought to two a second."""

from __future__ import annotations

import numpy as np

from dsaml_jax.datasets.schema import RATING_HZ

_SLACK = 1e-6  # of a half second: absorbs the rounding of n / 10 Hz and the like


def half_second_means(edges_s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of a step function over each whole half second.

    A source value is held over its own interval: x(t) = values[j] for edges[j] <= t < edges[j+1].
    Output i is the mean of x over the half second that starts i / 2 after edges[0],

        y_i = 2 ∫ x(t) dt,  t from edges[0] + i/2 to edges[0] + (i+1)/2,

    so a 10 Hz curve gives means of five values, a value a bar is weighted by the time that it
    holds, and a 2 Hz curve comes back unchanged. What remains at the end and does not fill a half
    second is left out: nothing is made up past the last value.

    Args:
      edges_s: [n + 1] ends of the source intervals in seconds, rising.
      values: [n, d] source values.

    Returns:
      [m, d] float32, m = floor(2 (edges[n] - edges[0])).
    """
    edges = np.asarray(edges_s, np.float64) * RATING_HZ
    values = np.asarray(values, np.float64)
    if edges.shape != (len(values) + 1,) or values.ndim != 2:
        raise ValueError(f"edges {edges.shape} do not enclose values {values.shape}")
    if np.any(np.diff(edges) <= 0):
        raise ValueError("edges must rise")
    edges = edges - edges[0]
    steps = int(np.floor(edges[-1] + _SLACK))
    integral = np.concatenate(
        [np.zeros((1, values.shape[1])), np.cumsum(values * np.diff(edges)[:, None], axis=0)]
    )
    grid = np.arange(steps + 1.0)
    at_grid = np.stack([np.interp(grid, edges, column) for column in integral.T], axis=1)
    means = np.diff(at_grid, axis=0)
    # Rounding in the running sum must not push a value off the scale that the source kept to.
    return np.clip(means, values.min(0), values.max(0)).astype(np.float32)


def from_rate(values: np.ndarray, hz: float) -> np.ndarray:
    """`half_second_means` of [n, d] values taken `hz` times a second, each held 1 / hz seconds."""
    return half_second_means(np.arange(len(values) + 1) / hz, values)


def from_bars(values: np.ndarray, duration_s: float) -> np.ndarray:
    """`half_second_means` of [n, d] values of n bars that share `duration_s` seconds equally."""
    return half_second_means(np.linspace(0.0, duration_s, len(values) + 1), values)
