"""Sequences of any length for a model that sees windows of S segments.

The windows that each sequence needs, and the position in them at which each segment is read, are
planned up front as integers; predictions for the windows are then gathered into curves. A clip is
one window, so clips and whole songs take the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.evaluation.sequences import Sequences
from dsaml_jax.evaluation.splicing import song_windows, splice


class Clips(NamedTuple):
    """Inputs of the model.

    Attributes:
      log_mel: [..., S, T, F].
      embedding: [..., G], or [..., S, G] of each segment.
    """

    log_mel: jax.Array | np.ndarray
    embedding: jax.Array | np.ndarray


class WindowInputs(NamedTuple):
    """Audio features of a corpus, on the same device as its tables (NumPy if on the host).

    Attributes:
      log_mel: [segments, T, F], all songs end to end.
      embedding: [rows, G], the embedded windows, or [segments, G], the embedded segments, of all
        songs.
    """

    log_mel: jax.Array | np.ndarray
    embedding: jax.Array | np.ndarray

    def clips(self, at: np.ndarray, row: np.ndarray, segments: int) -> Clips:
        """Gathers windows [...] of S segments: see `WindowPlan` for `at` and `row`."""
        return Clips(self.log_mel[at[..., None] + np.arange(segments)], self.embedding[row])


class Windows(NamedTuple):
    """U windows of S segments.

    Attributes:
      at: [U], the first segment of each, an index into `WindowInputs.log_mel`.
      row: [U] or [U, S], see `WindowPlan.row`.
      segments: S.
    """

    at: np.ndarray
    row: np.ndarray
    segments: int


class WindowPlan(NamedTuple):
    """U windows of a corpus of N songs, and where M sequences are read in them.

    Attributes:
      at: [U], the first segment of each window, an index into `WindowInputs.log_mel`. The first N
        windows are the first clips of the songs.
      row: [U], index into `WindowInputs.embedding`: the embedded window that starts nearest; [U, S]
        if every segment is embedded: those of the window.
      window: [M, L, 2], the window in which each segment is read, by dimension.
      position: [M, L, 2], the position in that window.
    """

    at: np.ndarray
    row: np.ndarray
    window: np.ndarray
    position: np.ndarray

    def splice(self, curves: np.ndarray) -> np.ndarray:
        """Gathers the curves of the sequences, [M, L, 2], from those of the windows, [U, S, 2]."""
        return splice(curves, self.window, self.position)


def window_inputs(corpus: Corpus) -> WindowInputs:
    """Returns the features of a corpus: of whole songs if it holds them, else of first clips."""
    if not corpus.features:
        log_mel, embedding = corpus.tables.log_mel, corpus.tables.embedding
        return WindowInputs(
            log_mel.reshape(-1, *log_mel.shape[2:]), embedding.reshape(-1, embedding.shape[-1])
        )
    inputs = WindowInputs(
        np.concatenate([song.log_mel for song in corpus.features]),
        np.concatenate([song.embeddings for song in corpus.features]),
    )
    return jax.tree.map(jnp.asarray, inputs) if corpus.tables.on_device else inputs


def window_plan(corpus: Corpus, sequences: Sequences, hops: tuple[int, ...]) -> WindowPlan:
    """Plans the windows of all tested songs, every `hops` segments for (arousal, valence)."""
    size, songs = corpus.segments, len(corpus.song_ids)
    if corpus.features:
        lengths = [len(song.log_mel) for song in corpus.features]
        embedded = [song.starts for song in corpus.features]
    else:
        lengths, embedded = [size] * songs, [np.zeros(1, int)] * songs
    first_segment = np.concatenate([[0], np.cumsum(lengths)])
    first_row = np.concatenate([[0], np.cumsum([len(starts) for starts in embedded])])

    # Segments past the end of a song may be read anywhere, as they are never valid.
    window = np.zeros((songs, sequences.curve.shape[1], len(hops)), int)
    position = np.zeros_like(window)
    index = {(song, 0): song for song in range(songs)}
    for song in np.unique(sequences.song).tolist():
        length = lengths[song] - sequences.first
        plan = song_windows(length, size, hops)
        starts = (plan.starts + sequences.first).tolist()
        numbers = np.array([index.setdefault((song, start), len(index)) for start in starts])
        window[song, :length] = numbers[plan.window]
        position[song, :length] = plan.position
    song, start = np.array(list(index)).T
    at = first_segment[song] + start
    if corpus.tables.embedding_per_segment:
        row = at[:, None] + np.arange(size)
    else:
        nearest = [int(np.abs(embedded[s] - t).argmin()) for s, t in zip(song, start, strict=True)]
        row = first_row[song] + nearest
    return WindowPlan(
        at=at,
        row=row,
        window=window[sequences.song],
        position=position[sequences.song],
    )


def episode_windows(
    plan: WindowPlan, sequences: Sequences, episodes: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Lists the windows that each episode needs for its valid segments.

    Returns:
      The windows of each episode, and `plan.window` as indices into the list of its episode.
    """
    needed: list[np.ndarray] = []
    local = np.zeros_like(plan.window)
    for episode in range(episodes):
        own = np.flatnonzero(sequences.episode == episode)
        window = np.where(
            sequences.valid[own][..., None], plan.window[own], plan.window[own, :1, :1]
        )
        used, inverse = np.unique(window, return_inverse=True)
        needed.append(used)
        local[own] = inverse.reshape(window.shape)
    return needed, local


def map_windows(
    predict: Callable[[np.ndarray], jax.Array], count: int, batch: int = 32
) -> np.ndarray:
    """Applies `predict` to windows 0 ... count - 1, in batches of equal size.

    Args:
      predict: the indices of `batch` windows -> [batch, ...].
      count: the number of windows.
      batch: windows per call. The last call is filled up with the first windows, so that only one
        shape is compiled.

    Returns:
      [count, ...].
    """
    windows = np.arange(-(-count // batch) * batch) % count
    parts: list[Any] = [jax.device_get(predict(rows)) for rows in windows.reshape(-1, batch)]
    return np.concatenate(parts)[:count]
