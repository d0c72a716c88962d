"""The curve of a whole song from a model that sees a window of it at a time.

Windows of S segments stand at every hop of h segments. The first is kept whole; each later one
contributes its last h segments, those that no earlier window saw. The DSAML release (S = 60) uses
h = 5 for arousal and h = 1 for valence. Where the song does not end at a hop, one more window
ends with the song and contributes what is missing; so does the release.

Splicing is index arithmetic: segment i is read at one position of one window (a plan), so only
windows that are read are run, and the curve is one gather. Two plans exist because the release's
splicing of arousal is half a second off (`released_splice_plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.errors import UserError

HOPS = (5, 1)
"""Segments between windows for (arousal, valence), as released."""

Plan = tuple[np.ndarray, np.ndarray]
"""(start, position), [length] int each: segment i is read in the window that starts at segment
`start[i]`, at its `position[i]`."""

PredictWindow = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(log-mel [W, S, T, F], embedding [W, 1 or S, D]) -> (arousal, valence) [W, S, 2]."""


def splice_plan(length: int, window: int, hop: int) -> Plan:
    """Where each segment of a song is read: at its own place, start + position = i.

    Segment i < S is read in the first window; a later one in the first window that reaches it,
    the one that ends at min(S + h ceil((i + 1 - S) / h), length).

    Args:
      length: segments in the song.
      window: S, segments a window; a shorter song is one window of its own length.
      hop: h, segments between windows, 1 to S.

    Raises:
      UserError: the hop is out of range.
    """
    if not 1 <= hop <= window:
        raise UserError(f"The hop is {hop} segments: choose one from 1 to the window's {window}.")
    segment = np.arange(length)
    hops = np.maximum(0, -((window - 1 - segment) // hop))  # ceil((i + 1 - S) / h)
    start = np.maximum(0, np.minimum(hops * hop, length - window))
    return start, segment - start


def released_splice_plan(length: int, window: int, hop: int) -> Plan:
    """The DSAML release's plan: for hops above 1 inner hops come out one segment early.

    Its windows for h > 1 start at k h + 1, not k h, but their last h segments are still put at
    S + (k - 1) h: segment i gets the value of segment i + 1. The first window and what the window
    that ends with the song contributes are in place; so is everything for h = 1. Use it to compare
    with the release's numbers; `splice_plan` says what is meant.

    Args and errors: of `splice_plan`.
    """
    start, position = splice_plan(length, window, hop)
    ahead = (start > 0) & (start < length - window) & (hop > 1)
    return start + ahead, position


def splice(windows: np.ndarray, starts: np.ndarray, plans: Sequence[Plan]) -> np.ndarray:
    """The song's curve from its windows' curves.

    Args:
      windows: [W, S, 2], the prediction of each window.
      starts: [W] increasing, the segment at which each window starts; at least `used_starts`.
      plans: one a dimension.

    Returns:
      [length, 2].
    """
    curves = []
    for dimension, (start, position) in enumerate(plans):
        row = np.searchsorted(starts, start)
        if not np.array_equal(np.take(starts, row, mode="clip"), start):
            raise ValueError(f"windows are missing: have {starts}, need {np.unique(start)}")
        curves.append(windows[row, position, dimension])
    return np.stack(curves, axis=-1)


def used_starts(plans: Sequence[Plan]) -> np.ndarray:
    """Starts [W] of the windows that any plan reads, increasing."""
    return np.unique(np.concatenate([start for start, _ in plans]))


def predict_song(
    predict_window: PredictWindow,
    log_mel: np.ndarray,
    embedding: np.ndarray,
    window: int = 60,
    hops: tuple[int, ...] = HOPS,
    batch: int = 32,
    plan: Callable[[int, int, int], Plan] = splice_plan,
) -> np.ndarray:
    """The curve of a song of any length.

    Args:
      predict_window: a batch of windows to their curves; it always gets `batch` windows, the last
        ones repeated where they run out, so that jit compiles once (and once more for each length
        of song that is shorter than a window).
      log_mel: [L, T, F], one spectrogram a segment.
      embedding: [1, D] for the whole song, given to every window, or [L, D], one a segment, cut
        like the spectrograms.
      window: S, segments a window.
      hops: segments between windows, one number a dimension.
      batch: windows a call.
      plan: (length, window, hop) -> where each segment is read.

    Returns:
      [L, 2] (arousal, valence).

    Raises:
      UserError: the song has no segment, a hop is longer than the window, or the embedding fits
        neither the song nor its segments.
    """
    length = len(log_mel)
    if length == 0:
        raise UserError("The song has no segment: it must last at least half a second.")
    if len(embedding) not in (1, length):
        raise UserError(
            f"The song has {length} segments and {len(embedding)} embeddings: give one for the "
            "whole song or one for every segment."
        )
    size = min(window, length)
    plans = [plan(length, window, hop) for hop in hops]
    starts = used_starts(plans)
    curves = np.empty((len(starts), size, len(DIMENSIONS)), np.float64)
    for first in range(0, len(starts), batch):
        chosen = starts[first : first + batch]
        padded = np.pad(chosen, (0, batch - len(chosen)), mode="edge")
        segments = padded[:, None] + np.arange(size)
        shared = np.zeros((batch, 1), int) if len(embedding) == 1 else segments
        predicted = predict_window(log_mel[segments], embedding[shared])
        curves[first : first + batch] = np.asarray(predicted)[: len(chosen)]
    return splice(curves, starts, plans)
