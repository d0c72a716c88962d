"""Curves of whole songs, spliced from the windows that a model predicts.

A model sees windows of S segments, one starting every h segments (the hop). The first window is
used whole; each later one contributes its last h segments, which no earlier window covers. The
DSAML release (S = 60) uses h = 5 for arousal and h = 1 for valence. If no hop ends exactly at the
end of the song, one more window does, and contributes the remaining segments; so in the release.

Splicing is index arithmetic: a plan gives the window and the position at which each segment is
read. Only windows that are read need to be predicted, and a curve is one gather. There are two
plans, because the release reads arousal half a second off (`released_splice_plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsaml_jax.errors import UserError

HOPS = (5, 1)
"""Segments between windows for (arousal, valence) in the release."""

Plan = tuple[np.ndarray, np.ndarray]
"""(start, position), each [length] int: segment i is read at `position[i]` of the window that
starts at segment `start[i]`."""


def splice_plan(length: int, window: int, hop: int) -> Plan:
    """Plans to read each segment at its own place: start + position = i.

    Segments i < S are read in the first window. A later segment is read in the first window that
    covers it, which ends at min(S + h ceil((i + 1 - S) / h), length).

    Args:
      length: segments in the song.
      window: S, segments in a window; a song shorter than that is one window of its own length.
      hop: h, segments between windows, 1 to S.

    Raises:
      UserError: the hop is out of range.
    """
    if not 1 <= hop <= window:
        raise UserError(f"The hop is {hop} segments; expected 1 to the window's {window}.")
    segment = np.arange(length)
    hops = np.maximum(0, -((window - 1 - segment) // hop))  # ceil((i + 1 - S) / h)
    start = np.maximum(0, np.minimum(hops * hop, length - window))
    return start, segment - start


def released_splice_plan(length: int, window: int, hop: int) -> Plan:
    """Plans as the DSAML release does, which reads inner hops one segment early if h > 1.

    For h > 1 the release's windows start at k h + 1 instead of k h, but their last h segments are
    still written at S + (k - 1) h, so segment i gets the value of segment i + 1. The first window
    and the window that ends with the song are in place, and so is everything for h = 1. Use this
    plan only to reproduce numbers of the release; `splice_plan` is the intended one.

    Args and Raises: see `splice_plan`.
    """
    start, position = splice_plan(length, window, hop)
    early = (start > 0) & (start < length - window) & (hop > 1)
    return start + early, position


class SongWindows(NamedTuple):
    """The W windows of one song, and where its segments are read.

    Attributes:
      starts: [W] increasing, the segment at which each window starts.
      window: [length, 2], the window in which each segment is read, by dimension.
      position: [length, 2], the position in that window.
    """

    starts: np.ndarray
    window: np.ndarray
    position: np.ndarray


def song_windows(
    length: int,
    window: int,
    hops: Sequence[int] = HOPS,
    plan: Callable[[int, int, int], Plan] = splice_plan,
) -> SongWindows:
    """Lists the windows that one song needs, and where each segment is read.

    Args:
      length: segments in the song.
      window: S, segments in a window; a song shorter than that is one window of its own length.
      hops: segments between windows, one number per dimension.
      plan: (length, window, hop) -> where each segment is read.

    Raises:
      UserError: the song has no segment, or a hop is out of range.
    """
    if length < 1:
        raise UserError("The song has no segment; it must last at least half a second.")
    plans = [plan(length, window, hop) for hop in hops]
    begins = np.stack([start for start, _ in plans], axis=-1)
    starts, index = np.unique(begins, return_inverse=True)
    position = np.stack([position for _, position in plans], axis=-1)
    return SongWindows(starts, index.reshape(begins.shape), position)


def splice(curves: np.ndarray, window: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Gathers curves [..., 2] from the curves of windows [W, S, 2].

    Args:
      curves: [W, S, 2], the prediction for each window.
      window, position: [..., 2], the window and the position at which each segment is read.
    """
    return curves[window, position, np.arange(curves.shape[-1])]
