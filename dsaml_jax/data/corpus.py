"""The songs and ratings of one split, in memory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.data.tables import Tables
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The N songs and R ratings of one split.

    `tables` holds what training needs, on the device; the NumPy arrays beside it are for
    evaluation, on the host.

    Attributes:
      tables: the first clip of every song, with its ratings.
      song_ids: [N], the names of the songs, in the order of the tables.
      annotator_ids: [A], the names of the annotators, in the order of the tables. Consensus labels
        have one annotator, `EVERYONE`.
      features: the features of every whole song, n >= S segments each; () if the corpus holds first
        clips only, which are in `tables`.
      curve: [R, L, 2] float32, the ratings over the L segments of the longest song; L = S if the
        corpus holds first clips only.
      valid: [R, L] bool, True where the segment is rated.
      noise_free: [R, L, 2], what simulated annotators perceived before rating noise; None for real
        annotators.
      ratings_by_song: [N] tuples, the personal ratings of each song in the whole data set, also
        those that belong to no split.
      left_out: {annotator id: number of songs} of the annotators with too few songs.
      scaling: statistics by which the embeddings were scaled; None if they were not.
      sources: [N], a hash of everything that each song's features depend on; () if unknown.
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
        """S, the number of segments in a clip."""
        return self.tables.log_mel.shape[1]

    @property
    def is_consensus(self) -> bool:
        """Whether the labels are consensus labels instead of personal ones."""
        return self.annotator_ids == (EVERYONE,)

    def scaled(self, scaling: Scaling) -> Corpus:
        """Returns the corpus with scaled embeddings."""
        # Always computed on the device, so that the results do not depend on `data.on_device`.
        on_device = scaling.apply(jnp.asarray(self.tables.embedding))
        embedding = on_device if self.tables.on_device else np.asarray(on_device)
        return dataclasses.replace(
            self,
            scaling=scaling,
            tables=self.tables._replace(embedding=embedding),
            features=tuple(
                song._replace(embeddings=scaling.apply(song.embeddings)) for song in self.features
            ),
        )

    def __str__(self) -> str:
        if self.is_consensus:
            return f"{len(self.song_ids)} songs with consensus labels"
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
    embedding_per_segment: bool = False,
    ratings_by_song: Mapping[str, Sequence[Rating]] | None = None,
) -> Corpus:
    """Stacks the features of songs and indexes their ratings.

    Personal labels exclude ratings by `EVERYONE`, which are averages; consensus labels are those
    ratings alone. Ratings are cut to the length of the features; where a rating is shorter, `valid`
    is False.

    Args:
      songs: the songs of one split.
      features: the features of each song, in the same order. They may be large, so they are read
        one at a time.
      segments: S, the number of segments in a clip.
      min_songs: annotators with fewer songs are left out and counted; personal labels only.
      source: name of the split, for error messages.
      labels: "personal" or "consensus".
      whole_songs: whether to keep the features of whole songs instead of first clips.
      on_device: whether to put the features on the device, like the ratings.
      embedding_per_segment: whether the features have an embedding for each segment.
      ratings_by_song: {song id: all ratings in the data set}; by default the ratings of `songs`.

    Raises:
      UserError: a rating is not finite, an annotator rated a song twice, or no annotator has
        `min_songs` songs.
    """
    rows = segments if embedding_per_segment else 1
    features = [song if whole_songs else _first_clip(song, segments, rows) for song in features]
    selected: list[tuple[int, Rating]] = []
    for i, song in enumerate(songs):
        labeled = [
            r for r in song.ratings if (r.annotator_id == EVERYONE) == (labels != "personal")
        ]
        _check_ratings(song, labeled, source)
        selected += [(i, rating) for rating in labeled]
    songs_rated = Counter(rating.annotator_id for _, rating in selected)
    minimum = min_songs if labels == "personal" else 1
    annotator_ids = tuple(sorted(name for name, n in songs_rated.items() if n >= minimum))
    if not annotator_ids:
        raise UserError(
            f"{source}: none of the {len(songs_rated)} annotators rated {minimum} songs (the most "
            f"active rated {max(songs_rated.values(), default=0)}); lower data.min_songs, or "
            "data.validation_min_songs for the validation split."
        )
    index = {name: i for i, name in enumerate(annotator_ids)}
    kept = [(song, rating) for song, rating in selected if rating.annotator_id in index]
    longest = max(len(song.log_mel) for song in features)
    padded = np.stack([_pad(r.curve, len(features[i].log_mel), longest) for i, r in kept])
    curve, valid = np.nan_to_num(padded), np.all(np.isfinite(padded), axis=-1)
    annotator_of = np.array([index[rating.annotator_id] for _, rating in kept], np.int32)
    ratings_of, counts = _ratings_by_annotator(annotator_of, len(annotator_ids))
    place = jnp.asarray if on_device else np.asarray
    embedding = np.stack([song.embeddings[:rows] for song in features])
    tables = Tables(
        log_mel=place(np.stack([song.log_mel[:segments] for song in features])),
        embedding=place(embedding if embedding_per_segment else embedding[:, 0]),
        curve=jnp.asarray(curve[:, :segments]),
        valid=jnp.asarray(valid[:, :segments]),
        song_of=jnp.array([song for song, _ in kept], jnp.int32),
        annotator_of=jnp.asarray(annotator_of),
        ratings_of=jnp.asarray(ratings_of),
        counts=jnp.asarray(counts),
    )
    if ratings_by_song is None:
        ratings_by_song = {song.song_id: song.ratings for song in songs}
    return Corpus(
        tables=tables,
        song_ids=tuple(song.song_id for song in songs),
        annotator_ids=annotator_ids,
        features=tuple(features) if whole_songs else (),
        curve=curve,
        valid=valid,
        noise_free=_noise_free([rating for _, rating in kept], longest),
        ratings_by_song=tuple(
            tuple(r for r in ratings_by_song[song.song_id] if r.annotator_id != EVERYONE)
            for song in songs
        ),
        left_out={name: n for name, n in sorted(songs_rated.items()) if n < minimum},
    )


def _check_ratings(song: Song, ratings: Sequence[Rating], source: str) -> None:
    counts = Counter(rating.annotator_id for rating in ratings)
    for name, count in counts.items():
        if count > 1:
            raise UserError(
                f"{source}: annotator {name} rated song {song.song_id} {count} times; "
                "keep one rating."
            )
    for rating in ratings:
        bad = np.flatnonzero(~np.isfinite(rating.curve).all(-1))
        if len(bad):
            raise UserError(
                f"{source}: the rating of song {song.song_id} by annotator {rating.annotator_id} "
                f"is not a finite number in row {bad[0]} (and {len(bad) - 1} more); fix or remove "
                "it."
            )


def _first_clip(song: SongFeatures, segments: int, rows: int) -> SongFeatures:
    """Returns the first segments of a song, and the first rows of its embeddings."""
    # Copies: a view would keep the whole song in memory.
    return SongFeatures(
        song.log_mel[:segments].copy(), song.embeddings[:rows].copy(), song.starts[:rows].copy()
    )


def _noise_free(ratings: Sequence[Rating], length: int) -> np.ndarray | None:
    """Stacks the noise-free curves, padded with 0 to [R, length, 2]; None unless all have one."""
    curves = [rating.noise_free for rating in ratings if rating.noise_free is not None]
    if len(curves) < len(ratings):
        return None
    return np.nan_to_num(np.stack([_pad(curve, length, length) for curve in curves]))


def _pad(curve: np.ndarray, limit: int, length: int) -> np.ndarray:
    """Cuts a curve to `limit` values and pads it with NaN to [length, 2]."""
    cut = curve[:limit].astype(np.float32)
    return np.pad(cut, ((0, length - len(cut)), (0, 0)), constant_values=np.nan)


def _ratings_by_annotator(
    annotator_of: np.ndarray, annotators: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ratings of each annotator, padded to [A, largest count], and the counts [A]."""
    ratings = [np.flatnonzero(annotator_of == i) for i in range(annotators)]
    counts = np.array([len(indices) for indices in ratings], np.int32)
    padded = [np.pad(indices, (0, counts.max() - len(indices)), mode="edge") for indices in ratings]
    return np.stack(padded).astype(np.int32), counts
