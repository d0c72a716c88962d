"""The songs and ratings of one split, in memory: every song once, ratings as integers into them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import atomic_write
from dsaml_jax.model.batch import Batch


class Tables(NamedTuple):
    """A corpus as arrays (a pytree): N songs, R ratings, A annotators.

    It lives on the device; where that has no room, `log_mel` and `embedding` are NumPy's.

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

    @property
    def on_device(self) -> bool:
        """Whether the songs are on the device too."""
        return not isinstance(self.log_mel, np.ndarray)

    def batch(self, ratings: jax.Array, batch_stats) -> Batch:
        """The clips of ratings [..., n], gathered where the songs are."""
        songs = self.song_of[ratings]
        songs = songs if self.on_device else np.asarray(songs)
        return Batch(
            log_mel=self.log_mel[songs],
            embedding=self.embedding[songs],
            curve=self.curve[ratings],
            valid=self.valid[ratings],
            batch_stats=batch_stats,
        )


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One split: N songs, R ratings. What is NumPy here is for evaluation, on the host.

    Attributes:
      tables: its first clips, to train on.
      song_ids, annotator_ids: names of the tables' rows. With consensus labels there is one
        annotator, `EVERYONE`.
      features: of each song whole, n >= S segments; () where songs are known by their first clips
        alone, which are in `tables`.
      curve, valid: [R, L, 2] and [R, L], the ratings over the L segments of the longest song, of
        first clips L = S.
      noise_free: [R, L, 2], what simulated annotators perceived before noise; None for real people.
      ratings_by_song: of each song, the ratings of all people in the data set, whatever their split.
      left_out: annotators without enough songs: {annotator id: number of songs}.
      scaling: of the embeddings; None as long as they are as computed.
      sources: of each song, what its features were computed from, as a hash; () where that is not
        known.
    """

    tables: Tables
    song_ids: tuple[str, ...]
    annotator_ids: tuple[str, ...]
    features: tuple[SongFeatures, ...]
    curve: np.ndarray
    valid: np.ndarray
    noise_free: np.ndarray | None
    ratings_by_song: tuple[tuple[Rating, ...], ...]
    left_out: dict[str, int]
    scaling: Scaling | None = None
    sources: tuple[str, ...] = ()

    @property
    def segments(self) -> int:
        """S, segments in a clip."""
        return self.tables.log_mel.shape[1]

    @property
    def is_consensus(self) -> bool:
        """Whether the ratings are everyone's mean instead of people's own."""
        return self.annotator_ids == (EVERYONE,)

    def __str__(self) -> str:
        if self.is_consensus:
            return f"{len(self.song_ids)} songs, rated by everyone together"
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
    """Mean and standard deviation [G] of the training clips' embeddings."""

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
        # By the same arithmetic wherever the songs are.
        scaled = self._scaled(jnp.asarray(corpus.tables.embedding))
        embedding = scaled if corpus.tables.on_device else np.asarray(scaled)
        return dataclasses.replace(
            corpus,
            scaling=self,
            tables=corpus.tables._replace(embedding=embedding),
            features=tuple(
                song._replace(embeddings=self._scaled(song.embeddings)) for song in corpus.features
            ),
        )

    def save(self, path: Path) -> None:
        """Writes `mean` and `deviation`, [G] each, as .npz: what new songs must be scaled by."""
        with atomic_write(path) as file:
            np.savez(file, **self._asdict())

    def _scaled(self, embedding):
        return (embedding - self.mean) / self.deviation


def build_corpus(
    songs: Sequence[Song],
    features: Iterable[SongFeatures],
    *,
    segments: int,
    min_songs: int,
    source: str,
    labels: str = "personal",
    whole_songs: bool = False,
    on_device: bool = True,
    ratings_by_song: Mapping[str, Sequence[Rating]] | None = None,
) -> Corpus:
    """Stacks the songs' features and indexes their ratings.

    With personal labels, ratings by `EVERYONE` are aggregates, not people, and do not become tasks;
    with consensus labels only they count. Curves are cut to what there are features of; where they
    are shorter, `valid` is False.

    Args:
      songs: of one split.
      features: of each song, in the same order; taken one at a time, since they may be large.
      segments: S of a clip.
      min_songs: annotators with fewer songs are left out, and counted; of personal labels.
      source: name of the split, for messages.
      labels: "personal" or "consensus".
      whole_songs: keep all features of the songs, instead of those of their first clips.
      on_device: put the songs' features on the device, beside the ratings.
      ratings_by_song: {song id: ratings of all people}; by default those of `songs`.

    Raises:
      UserError: a rating is not finite, an annotator rates a song twice, or nobody is left.
    """
    features = [song if whole_songs else _first_clip(song, segments) for song in features]
    rated = []
    for i, song in enumerate(songs):
        chosen = [r for r in song.ratings if (r.annotator_id == EVERYONE) == (labels != "personal")]
        _check(song, chosen, source)
        rated += [(i, rating) for rating in chosen]
    activity = Counter(rating.annotator_id for _, rating in rated)
    least = min_songs if labels == "personal" else 1
    annotator_ids = tuple(sorted(name for name, n in activity.items() if n >= least))
    if not annotator_ids:
        raise UserError(
            f"{source}: none of {len(activity)} annotators has rated {least} songs (the most "
            f"active rated {max(activity.values(), default=0)}); lower data.min_songs, of "
            "validation data.validation_min_songs."
        )
    index = {name: i for i, name in enumerate(annotator_ids)}
    kept = [(song, rating) for song, rating in rated if rating.annotator_id in index]
    longest = max(len(song.log_mel) for song in features)
    fitted = np.stack([_fit(r.curve, len(features[i].log_mel), longest) for i, r in kept])
    curve, valid = np.nan_to_num(fitted), np.isfinite(fitted).all(-1)
    noise_free = None
    if all(rating.noise_free is not None for _, rating in kept):
        noise_free = np.nan_to_num(
            np.stack([_fit(r.noise_free, longest, longest) for _, r in kept])
        )
    annotator_of = np.array([index[rating.annotator_id] for _, rating in kept], np.int32)
    ratings_of, counts = _by_annotator(annotator_of, len(annotator_ids))
    tables = Tables(
        log_mel=np.stack([each.log_mel[:segments] for each in features]),
        embedding=np.stack([each.embeddings[0] for each in features]),
        curve=curve[:, :segments],
        valid=valid[:, :segments],
        song_of=np.array([song for song, _ in kept], np.int32),
        annotator_of=annotator_of,
        ratings_of=ratings_of,
        counts=counts,
    )
    placed = jax.tree.map(jnp.asarray, tables)
    if not on_device:
        placed = placed._replace(log_mel=tables.log_mel, embedding=tables.embedding)
    people = {song.song_id: song.ratings for song in songs} if ratings_by_song is None else ratings_by_song
    return Corpus(
        placed,
        tuple(song.song_id for song in songs),
        annotator_ids,
        tuple(features) if whole_songs else (),
        curve,
        valid,
        noise_free,
        tuple(
            tuple(r for r in people[song.song_id] if r.annotator_id != EVERYONE) for song in songs
        ),
        {name: n for name, n in sorted(activity.items()) if n < least},
    )


def _check(song: Song, ratings: Sequence[Rating], source: str) -> None:
    names = Counter(rating.annotator_id for rating in ratings)
    for name, times in names.items():
        if times > 1:
            raise UserError(
                f"{source}: annotator {name} rates song {song.song_id} {times} times; "
                "keep one rating."
            )
    for rating in ratings:
        bad = np.flatnonzero(~np.isfinite(rating.curve).all(-1))
        if len(bad):
            raise UserError(
                f"{source}: the rating of song {song.song_id} by annotator {rating.annotator_id} "
                f"is not a number at row {bad[0]} (and {len(bad) - 1} more); correct or remove it."
            )


def _first_clip(song: SongFeatures, segments: int) -> SongFeatures:
    # Copies: a view would keep the whole song in memory.
    return SongFeatures(
        song.log_mel[:segments].copy(), song.embeddings[:1].copy(), song.starts[:1].copy()
    )


def _fit(curve: np.ndarray, held: int, length: int) -> np.ndarray:
    """The first `held` values of a curve, as [length, 2] filled up with NaN."""
    cut = curve[:held].astype(np.float32)
    return np.pad(cut, ((0, length - len(cut)), (0, 0)), constant_values=np.nan)


def _by_annotator(annotator_of: np.ndarray, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    lists = [np.flatnonzero(annotator_of == i) for i in range(annotators)]
    counts = np.array([len(each) for each in lists], np.int32)
    padded = [np.pad(each, (0, counts.max() - len(each)), mode="edge") for each in lists]
    return np.stack(padded).astype(np.int32), counts
