"""Songs with all their raters, for training that goes from song to song instead of by annotator."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from dsaml_jax.data.tables import Tables


class Raters(NamedTuple):
    """The ratings of each of N songs.

    Attributes:
      ratings: [N, r] int32, padded with rating 0.
      rated: [N, r] bool, False for padding.
    """

    ratings: jax.Array | np.ndarray
    rated: jax.Array | np.ndarray


def raters_of(tables: Tables, songs: int) -> Raters:
    """Lists the ratings of each song; r is the largest number of ratings of a song."""
    song_of = np.asarray(tables.song_of)
    counts = np.bincount(song_of, minlength=songs)
    rated = np.arange(counts.max()) < counts[:, None]
    ratings = np.zeros(rated.shape, np.int32)
    ratings[rated] = np.argsort(song_of, kind="stable")
    return Raters(ratings, rated)


def draw_songs(key: jax.Array, step: jax.Array | int, songs: int, count: int) -> jax.Array:
    """Draws the songs [count] of a step, all different, as a pure function of key and step.

    Every epoch is a new permutation of the songs; its last songs are left out if they are fewer
    than `count`.
    """
    epoch, place = divmod(step, songs // count)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), songs)
    return jax.lax.dynamic_slice_in_dim(order, place * count, count)
