"""Windows of whole songs, encoded so that what overlapping windows share is computed once.

With normalization "running" (the released weights in evaluation) a segment's local features do not
depend on its window, and neighboring windows share most of the local attention pass too: see
`model.overlapping`. With "clip" and "batch" the adapter normalizes by all images of a window, so
that nothing behind its first convolution is the same in two windows, and each is computed alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.evaluation.splicing import HOPS, song_windows, splice
from dsaml_jax.evaluation.windows import Clips, WindowInputs, Windows, map_windows
from dsaml_jax.model import DSAML, DSAMLConfig

TOGETHER = 32
"""Windows that are computed at once."""

Read = Callable[[DSAMLConfig, dict[str, Any], jax.Array], jax.Array]
"""(model, variables, features [N, S, D]) -> what is kept of them, [N, ...]."""


def curves_of(model: DSAMLConfig, variables: dict[str, Any], features: jax.Array) -> jax.Array:
    """Returns the curves [N, S, 2] of features [N, S, D]."""
    return cast(jax.Array, DSAML(model).apply(variables, features, method="predict"))


def features_of(model: DSAMLConfig, variables: dict[str, Any], features: jax.Array) -> jax.Array:
    """Returns the features themselves."""
    return features


@functools.partial(jax.jit, static_argnums=(0, 1))
def read_clips(
    read: Read, model: DSAMLConfig, variables: dict[str, Any], clips: Clips
) -> jax.Array:
    """Encodes and reads clips, each alone: [N, ...]."""
    return read(model, variables, DSAML(model).apply(variables, *clips, method="encode")[0])


def map_encoded(
    read: Read,
    model: DSAMLConfig,
    variables: dict[str, Any],
    inputs: WindowInputs,
    windows: Windows,
) -> np.ndarray:
    """Encodes windows and reads them: [U, ...].

    Args:
      read: `curves_of` or `features_of`.
      model: the model.
      variables: its weights.
      inputs: the features that the windows are parts of.
      windows: the windows, in any order; they may be of several songs.
    """
    blocks = blocks_of(model, windows, len(inputs.log_mel))
    if blocks is None:

        def alone(rows: np.ndarray) -> jax.Array:
            clips = inputs.clips(windows.at[rows], windows.row[rows], windows.segments)
            return read_clips(read, model, variables, clips)

        return map_windows(alone, len(windows.at), TOGETHER)

    local = describe(model, variables, inputs.log_mel, windows.segments)
    embedding = np.asarray(inputs.embedding)
    parts: list[np.ndarray] = []
    for block in blocks:
        span = slice(block.first, block.first + block.length)
        row = span if windows.row.ndim == 2 else windows.row[block.windows[0]]
        starts = np.resize(windows.at[block.windows] - block.first, block.most)
        features = local[span], embedding[row], starts
        part = _overlapping(read, model, windows.segments, variables, *features)
        parts.append(np.asarray(part)[: len(block.windows)])
    order = np.concatenate([block.windows for block in blocks])
    return np.concatenate(parts)[np.argsort(order)]


def predict_song(
    model: DSAMLConfig,
    variables: dict[str, Any],
    song: SongFeatures,
    segments: int,
    hops: tuple[int, ...] = HOPS,
) -> np.ndarray:
    """Predicts the spliced curve of one song of n >= S segments: [n, 2].

    Args:
      model: the model.
      variables: its weights.
      song: the song's features, with scaled embeddings.
      segments: S.
      hops: segments between windows for (arousal, valence).

    Raises:
      UserError: a hop is out of range.
    """
    plan = song_windows(len(song.log_mel), segments, hops)
    if len(song.starts) == len(song.log_mel):  # every segment is embedded
        row = plan.starts[:, None] + np.arange(segments)
    else:
        row = np.abs(song.starts - plan.starts[:, None]).argmin(1)
    inputs = WindowInputs(song.log_mel, song.embeddings)
    windows = Windows(plan.starts, row, segments)
    curves = map_encoded(curves_of, model, variables, inputs, windows)
    return splice(curves, plan.window, plan.position)


def describe(
    model: DSAMLConfig, variables: dict[str, Any], log_mel: jax.Array | np.ndarray, segments: int
) -> np.ndarray:
    """Returns the local features [n, D] of n >= S segments, with normalization "running".

    They are computed in clips of S segments, which have no influence on them.
    """
    total = len(log_mel)
    clips = -(-total // segments)

    def clip(rows: np.ndarray) -> jax.Array:
        inside = rows[:, None] * segments + np.arange(segments)
        return _describe(model, variables, log_mel[inside % total])

    return map_windows(clip, clips, batch=1).reshape(clips * segments, -1)[:total]


class Block(NamedTuple):
    """Windows that lie in one span of segments.

    Attributes:
      windows: their indices, at most `most`.
      first: first segment of the span.
      length: L, segments in it, the same for all blocks.
      most: B, the windows that are computed.
    """

    windows: np.ndarray
    first: int
    length: int
    most: int


def blocks_of(model: DSAMLConfig, windows: Windows, total: int) -> list[Block] | None:
    """Groups windows that overlap; None if they share too little for that to pay."""
    if model.normalization != "running":
        return None
    per_segment = windows.row.ndim == 2
    groups: list[list[int]] = [[]]
    for window in np.argsort(windows.at, kind="stable").tolist():
        first = (groups[-1] or [window])[0]
        if (
            len(groups[-1]) == TOGETHER
            or windows.at[window] - windows.at[first] >= TOGETHER
            or (not per_segment and windows.row[window] != windows.row[first])
        ):
            groups.append([])
        groups[-1].append(window)
    most = max(map(len, groups))
    reach = max(windows.at[group[-1]] - windows.at[group[0]] for group in groups)
    length = int(min(reach + windows.segments, total))
    # A block is filled up to `most` windows, and its segments are computed for all of them.
    if most == 1 or length > model.max_positions or 2 * len(windows.at) < most * len(groups):
        return None
    return [
        Block(np.array(group), int(min(windows.at[group[0]], total - length)), length, most)
        for group in groups
    ]


@functools.partial(jax.jit, static_argnums=0)
def _describe(model: DSAMLConfig, variables: dict[str, Any], log_mel: jax.Array) -> jax.Array:
    return cast(jax.Array, DSAML(model).apply(variables, log_mel, method="describe"))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _overlapping(
    read: Read,
    model: DSAMLConfig,
    segments: int,
    variables: dict[str, Any],
    local_LD: jax.Array,
    embedding: jax.Array,
    starts_B: jax.Array,
) -> jax.Array:
    features = DSAML(model).apply(
        variables, local_LD, embedding, starts_B, segments, method="encode_overlapping"
    )
    return read(model, variables, cast(jax.Array, features))
