"""A corpus as arrays: every song once, and ratings as integers that refer to songs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.model.batch import Batch, Encoded


class Tables(NamedTuple):
    """The first clips of a corpus as a pytree of arrays: N songs, R ratings, A annotators.

    All arrays are on the device, except that `log_mel` and `embedding` are NumPy arrays on the host
    if the device has no room for them.

    Attributes:
      log_mel: [N, S, T, F] float32, one log-mel spectrogram per segment.
      embedding: [N, G] float32, the global embedding of the clip, or [N, S, G], of each segment.
      curve: [R, S, 2] float32, (arousal, valence) in [-1, 1].
      valid: [R, S] bool, True where the segment is rated.
      song_of: [R] int32, the song of each rating.
      annotator_of: [R] int32, the annotator of each rating.
      ratings_of: [A, largest count] int32, the ratings of each annotator, padded with the last one.
      counts: [A] int32, the number of ratings of each annotator.
      encoded: [N, S, D], the encoder's features; None where it computes them from the two inputs,
        which are empty otherwise.
    """

    log_mel: jax.Array | np.ndarray
    embedding: jax.Array | np.ndarray
    curve: jax.Array
    valid: jax.Array
    song_of: jax.Array
    annotator_of: jax.Array
    ratings_of: jax.Array
    counts: jax.Array
    encoded: jax.Array | None = None

    @property
    def on_device(self) -> bool:
        """Whether the features of the songs are on the device."""
        return not isinstance(self.log_mel, np.ndarray)

    def without_songs(self) -> Tables:
        """Returns the ratings alone."""
        return self._replace(log_mel=jnp.zeros((0,)), embedding=jnp.zeros((0,)))

    @property
    def embedding_per_segment(self) -> bool:
        """Whether each segment of a clip has an embedding of its own."""
        return self.embedding.ndim == 3

    def batch(self, ratings: jax.Array | np.ndarray, batch_stats: Any) -> Batch:
        """Gathers the clips of ratings [..., n] on the device or host that holds the features."""
        songs = self.song_of[ratings]
        if self.encoded is not None:
            features = Encoded(self.encoded[songs], jnp.zeros(ratings.shape[:-1]), batch_stats)
            return Batch(
                None, None, self.curve[ratings], self.valid[ratings], batch_stats, features
            )
        songs = songs if self.on_device else np.asarray(songs)
        return Batch(
            log_mel=self.log_mel[songs],
            embedding=self.embedding[songs],
            curve=self.curve[ratings],
            valid=self.valid[ratings],
            batch_stats=batch_stats,
        )
