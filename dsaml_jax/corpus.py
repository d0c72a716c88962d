"""The songs and ratings of one split, in memory: every song once, ratings as integers into them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.features import Features
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.objective import Batch


class Tables(NamedTuple):
    """A corpus as arrays (a pytree that lives on the device): N songs, R ratings, A annotators.

    Attributes:
      log_mel: [N, S, T, F].
      embedding: [N, G].
      curve: [R, S, 2], (arousal, valence).
      valid: [R, S] bool, where there is a rating.
      song_of: [R] the song that is rated.
      annotator_of: [R] who rates.
      ratings_of: [A, most ratings] each annotator's ratings, padded with its first one.
      counts: [A] how many of them there are.
    """

    log_mel: jax.Array
    embedding: jax.Array
    curve: jax.Array
    valid: jax.Array
    song_of: jax.Array
    annotator_of: jax.Array
    ratings_of: jax.Array
    counts: jax.Array

    def batch(self, ratings: jax.Array, statistics) -> Batch:
        """The clips of ratings [..., n], gathered on the device."""
        songs = self.song_of[ratings]
        return Batch(
            log_mel=self.log_mel[songs],
            embedding=self.embedding[songs],
            curve=self.curve[ratings],
            valid=self.valid[ratings],
            statistics=statistics,
        )


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One split.

    Attributes:
      tables: its arrays.
      song_ids, annotator_ids: names of the tables' rows.
      noise_free: [R, S, 2], what simulated annotators perceive before noise; None for real people.
      left_out: annotators without enough songs: {annotator id: number of songs}.
    """

    tables: Tables
    song_ids: tuple[str, ...]
    annotator_ids: tuple[str, ...]
    noise_free: np.ndarray | None
    left_out: dict[str, int]

    def __str__(self) -> str:
        text = (
            f"{len(self.song_ids)} songs, {len(self.annotator_ids)} annotators, "
            f"{len(self.tables.song_of)} ratings"
        )
        if self.left_out:
            text += (
                f" (left out: {len(self.left_out)} annotators with too few songs, "
                f"{sum(self.left_out.values())} ratings)"
            )
        return text


class Scaling(NamedTuple):
    """Mean and standard deviation [G] of the training songs' embeddings."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus) -> Scaling:
        embedding = np.asarray(corpus.tables.embedding)
        # A value that never changes says nothing: it becomes 0, not a division by rounding noise.
        deviation = embedding.std(0)
        varies = deviation > 1e-6 * np.maximum(1.0, np.abs(embedding).max(0))
        return cls(embedding.mean(0), np.where(varies, deviation, np.inf).astype(np.float32))

    def apply(self, corpus: Corpus) -> Corpus:
        """The corpus with embeddings of training mean 0 and deviation 1."""
        tables = corpus.tables
        scaled = (tables.embedding - self.mean) / self.deviation
        return dataclasses.replace(corpus, tables=tables._replace(embedding=jnp.asarray(scaled)))


def build_corpus(
    songs: Sequence[Song],
    features: Sequence[Features],
    *,
    min_songs: int,
    source: str,
) -> Corpus:
    """Stacks the songs' features and indexes their personal ratings.

    Ratings by `EVERYONE` are aggregates, not people, and do not become tasks. Curves are cut to the
    clip's S segments; where they are shorter, `valid` is False.

    Args:
      songs: of one split.
      features: of each song's clip, which starts with its ratings.
      min_songs: annotators with fewer songs are left out, and counted.
      source: name of the split, for messages.

    Raises:
      UserError: a rating is not finite, an annotator rates a song twice, or nobody is left.
    """
    rated = []
    for i, song in enumerate(songs):
        personal = [rating for rating in song.ratings if rating.annotator_id != EVERYONE]
        names = Counter(rating.annotator_id for rating in personal)
        for name, times in names.items():
            if times > 1:
                raise UserError(
                    f"{source}: annotator {name} rates song {song.song_id} {times} times; "
                    "keep one rating."
                )
        for rating in personal:
            _check_finite(song, rating, source)
        rated += [(i, rating) for rating in personal]
    activity = Counter(rating.annotator_id for _, rating in rated)
    annotator_ids = tuple(sorted(name for name, n in activity.items() if n >= min_songs))
    left_out = {name: n for name, n in sorted(activity.items()) if n < min_songs}
    if not annotator_ids:
        raise UserError(
            f"{source}: none of {len(activity)} annotators has rated data.min_songs = {min_songs} "
            f"songs (the most active rated {max(activity.values(), default=0)}); lower it."
        )
    index = {name: i for i, name in enumerate(annotator_ids)}
    kept = [(song, rating) for song, rating in rated if rating.annotator_id in index]
    segments = features[0].log_mel.shape[0]
    annotator_of = np.array([index[rating.annotator_id] for _, rating in kept], np.int32)
    curve = np.stack([_fit(rating.curve, segments) for _, rating in kept])
    noise_free = None
    if all(rating.noise_free is not None for _, rating in kept):
        noise_free = np.nan_to_num(
            np.stack([_fit(rating.noise_free, segments) for _, rating in kept])
        )
    ratings_of, counts = _by_annotator(annotator_of, len(annotator_ids))
    tables = Tables(
        log_mel=np.stack([each.log_mel for each in features]),
        embedding=np.stack([each.embedding for each in features]),
        curve=np.nan_to_num(curve),
        valid=np.isfinite(curve).all(-1),
        song_of=np.array([song for song, _ in kept], np.int32),
        annotator_of=annotator_of,
        ratings_of=ratings_of,
        counts=counts,
    )
    return Corpus(
        jax.tree.map(jnp.asarray, tables),
        tuple(song.song_id for song in songs),
        annotator_ids,
        noise_free,
        left_out,
    )


def _check_finite(song: Song, rating: Rating, source: str) -> None:
    bad = np.flatnonzero(~np.isfinite(rating.curve).all(-1))
    if len(bad):
        raise UserError(
            f"{source}: the rating of song {song.song_id} by annotator {rating.annotator_id} is "
            f"not a number at row {bad[0]} (and {len(bad) - 1} more); correct or remove it."
        )


def _fit(curve: np.ndarray, segments: int) -> np.ndarray:
    """The curve cut to [segments, 2], or filled up with NaN."""
    cut = curve[:segments].astype(np.float32)
    return np.pad(cut, ((0, segments - len(cut)), (0, 0)), constant_values=np.nan)


def _by_annotator(annotator_of: np.ndarray, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    lists = [np.flatnonzero(annotator_of == i) for i in range(annotators)]
    counts = np.array([len(each) for each in lists], np.int32)
    padded = [np.pad(each, (0, counts.max() - len(each)), mode="edge") for each in lists]
    return np.stack(padded).astype(np.int32), counts
