"""Songs of any length before a model that sees S segments at a time.

Which windows a sequence is read from, and where in them, is fixed beforehand as integers
(`predict.splice_plan`); what a model says of the windows is then gathered into curves. A sequence
of one clip is one window, so clips and whole songs take the same path.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.evaluation.sequences import Sequences
from dsaml_jax.evaluation.splicing import splice_plan


class Clips(NamedTuple):
    """Attributes: log_mel: [..., S, T, F]; embedding: [..., G]."""

    log_mel: jax.Array
    embedding: jax.Array


class WindowInputs(NamedTuple):
    """What is heard of a corpus, where its tables have it: on the device or, as NumPy, the host.

    Attributes:
      log_mel: [segments, T, F], the songs end to end.
      embedding: [rows, G], of all songs' embedded windows.
    """

    log_mel: jax.Array
    embedding: jax.Array

    def window(self, at: np.ndarray, row: np.ndarray, segments: int) -> Clips:
        """The clips of windows [...]."""
        return Clips(self.log_mel[at[..., None] + np.arange(segments)], self.embedding[row])


class WindowPlan(NamedTuple):
    """U windows, and where in them M sequences are read; NumPy.

    Attributes:
      at: [U] first segment of each window, an index into `WindowInputs.log_mel`. The first N windows are
        the songs' first clips.
      row: [U] index into `WindowInputs.embedding`, of the embedded window that starts nearest.
      window: [M, L, 2] the window in which each segment is read, by dimension.
      position: [M, L, 2] the place in that window.
    """

    at: np.ndarray
    row: np.ndarray
    window: np.ndarray
    position: np.ndarray


def window_inputs(corpus: Corpus) -> WindowInputs:
    """The sound of a corpus: whole songs where it has them, else first clips."""
    if not corpus.features:
        log_mel = corpus.tables.log_mel
        return WindowInputs(log_mel.reshape(-1, *log_mel.shape[2:]), corpus.tables.embedding)
    inputs = WindowInputs(
        np.concatenate([song.log_mel for song in corpus.features]),
        np.concatenate([song.embeddings for song in corpus.features]),
    )
    return jax.tree.map(jnp.asarray, inputs) if corpus.tables.on_device else inputs


def window_plan(corpus: Corpus, sequences: Sequences, hops: tuple[int, ...]) -> WindowPlan:
    """How the sequences are read, with windows every `hops` segments for (arousal, valence)."""
    size, songs = corpus.segments, len(corpus.song_ids)
    if corpus.features:
        lengths = [len(song.log_mel) for song in corpus.features]
        starts = [song.starts for song in corpus.features]
    else:
        lengths, starts = [size] * songs, [np.zeros(1, int)] * songs
    first_segment = np.concatenate([[0], np.cumsum(lengths)])
    first_row = np.concatenate([[0], np.cumsum([len(each) for each in starts])])

    # Segments beyond a song's end are read anywhere; they are never valid.
    window = np.zeros((songs, sequences.curve.shape[1], len(hops)), int)
    position = np.zeros_like(window)
    index = {(song, 0): song for song in range(songs)}
    for song in np.unique(sequences.song).tolist():
        length = lengths[song] - sequences.first
        for dimension, hop in enumerate(hops):
            begin, place = splice_plan(length, size, hop)
            begins, inverse = np.unique(begin + sequences.first, return_inverse=True)
            named = [index.setdefault((song, start), len(index)) for start in begins.tolist()]
            window[song, :length, dimension] = np.array(named)[inverse]
            position[song, :length, dimension] = place
    song, start = np.array(list(index)).T
    nearest = [int(np.abs(starts[s] - t).argmin()) for s, t in zip(song, start, strict=True)]
    return WindowPlan(
        at=first_segment[song] + start,
        row=first_row[song] + nearest,
        window=window[sequences.song],
        position=position[sequences.song],
    )


def splice_windows(windows: np.ndarray, plan: WindowPlan) -> np.ndarray:
    """[M, L, 2] curves, read from what was predicted of every window, [U, S, 2]."""
    return windows[plan.window, plan.position, np.arange(windows.shape[-1])]


def episode_windows(
    plan: WindowPlan, sequences: Sequences, episodes: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """The windows that each episode needs, and `plan.window` as places in its episode's list.

    Segments that are not valid need none.
    """
    needed: list[np.ndarray] = []
    local = np.zeros_like(plan.window)
    for episode in range(episodes):
        mine = np.flatnonzero(sequences.episode == episode)
        window = np.where(
            sequences.valid[mine][..., None], plan.window[mine], plan.window[mine, :1, :1]
        )
        used, inverse = np.unique(window, return_inverse=True)
        needed.append(used)
        local[mine] = inverse.reshape(window.shape)
    return needed, local
