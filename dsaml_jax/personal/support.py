"""The support that a listener is inferred from: clips of rated songs, as in evaluation.

Evaluation adapts on the first clip of each support song, S segments from the first rated one on. A
longer rating gives more clips: one every S segments, and one that ends with the rating, which
counts where no earlier one does, as when curves are spliced. Each clip counts as a song of its own
does in evaluation with more support songs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.datasets.schema import DIMENSIONS, RATING_HZ
from dsaml_jax.errors import UserError
from dsaml_jax.model.batch import Batch
from dsaml_jax.personal.prediction import clips_at
from dsaml_jax.personal.rating import Rating
from dsaml_jax.personal.sound import Span, sound_seconds

LEAST_S = 5.0
"""Seconds of rating that a clip needs, and thus a song."""

LATE_S = 1.0
"""Seconds by which a rating may be longer than its song; what is later is left out."""


@dataclasses.dataclass(frozen=True)
class RatedSpan:
    """The rated part of a song.

    Attributes:
      span: from the first rated half second to the last.
      curve: [n, 2], the rating in each; NaN where it is not rated.
      notes: sentences about what was left out, and about what the rating covers.
    """

    span: Span
    curve: np.ndarray
    notes: tuple[str, ...]


def rated_span(path: str, rating: Rating, audio: AudioConfig) -> RatedSpan:
    """Resamples a rating to half seconds and finds the part of the song that it covers.

    Raises:
      UserError: the audio cannot be used; the rating is longer than the song, shorter than
        `LEAST_S`, or constant.
    """
    if abs(audio.segment_s * RATING_HZ - 1) > 1e-9:
        raise UserError(
            f"audio.segment_s is {audio.segment_s}; ratings are resampled to "
            f"{1 / RATING_HZ} s: expected that."
        )
    seconds = sound_seconds(path)
    _, curve = rating.bins()
    end_s = len(curve) / RATING_HZ
    if end_s > seconds + LATE_S:
        raise UserError(
            f"{rating.source} goes to {end_s:g} s, but {path} lasts {seconds:.2f} s; is it the "
            "rating of another song, or are its times in another unit?"
        )
    length = int(np.ceil(seconds * RATING_HZ - 1e-9))
    late = max(len(curve) - length, 0)
    curve = curve[:length]
    rated = np.flatnonzero(np.isfinite(curve).any(1))
    if len(rated) < LEAST_S * RATING_HZ:
        raise UserError(
            f"{rating.source} rates {len(rated) / RATING_HZ:g} s of {path}; expected at least "
            f"{LEAST_S:g} s."
        )
    first, last = int(rated[0]), int(rated[-1]) + 1
    curve = curve[first:last]
    columns = [column[np.isfinite(column)] for column in curve.T]
    if all(not len(column) or np.ptp(column) < 1e-6 for column in columns):
        raise UserError(
            f"{rating.source} is constant in every half second: nothing can be learned from it."
        )
    notes = [*rating.notes]
    if late:
        notes.append(f"{late / RATING_HZ:g} s after the end of the song are left out")
    missing = last - first - len(rated)
    if missing:
        notes.append(f"{missing / RATING_HZ:g} s in gaps are not rated")
    notes.append(
        f"{len(rated) / RATING_HZ:g} s of {seconds:.1f} s are rated, in "
        f"{' and '.join(rating.dimensions)}"
    )
    if rating.media and _stem(rating.media) != _stem(path):
        notes.append(f"CHECK: the rating names the file {rating.media!r}, not this one")
    span = Span(path, first / RATING_HZ, last - first, seconds)
    return RatedSpan(span, curve, tuple(notes))


def _stem(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0].lower()


@dataclasses.dataclass(frozen=True)
class SupportSong:
    """The clips of one song: `at` [k] first segments in the span, `valid` [k, S, 2] what counts."""

    at: np.ndarray
    curve: np.ndarray
    valid: np.ndarray
    left_out_s: float


def support_song(rated: RatedSpan, audio: AudioConfig, clips: int | None) -> SupportSong:
    """Cuts the rated part of a song into clips of S segments.

    Args:
      rated: the rating.
      audio: says S.
      clips: the largest number of clips; None for all, 1 as in evaluation.
    """
    size, length = audio.segments, len(rated.curve)
    starts = np.arange(0, max(length - size, 0) + 1, size)
    covered = starts[-1] + size
    if covered < length:
        starts = np.append(starts, length - size)
    curve = np.full((max(length, size), 2), np.nan, np.float32)
    curve[:length] = rated.curve
    clip = curve[starts[:, None] + np.arange(size)]
    valid = np.isfinite(clip)
    if covered < length:  # the last clip counts where no earlier one does
        valid[-1, : covered - starts[-1]] = False
    rated_s = valid.any(2).sum(1) / RATING_HZ
    kept = rated_s >= min(LEAST_S, rated_s.max())
    kept[np.cumsum(kept) > (clips or len(kept))] = False
    return SupportSong(
        starts[kept], np.nan_to_num(clip[kept]), valid[kept], float(rated_s[~kept].sum())
    )


def support_batch(songs: Sequence[tuple[SongFeatures, SupportSong]], audio: AudioConfig) -> Batch:
    """Stacks the clips of all songs as the inner loop takes them.

    `valid` has one column for each dimension only if one is rated alone anywhere.
    """
    clips = [clips_at(features, song.at, audio) for features, song in songs]
    valid = np.concatenate([song.valid for _, song in songs])
    alike = bool((valid[..., 0] == valid[..., 1]).all())
    return Batch(
        log_mel=jnp.asarray(np.concatenate([clip.log_mel for clip in clips])),
        embedding=jnp.asarray(np.concatenate([clip.embedding for clip in clips])),
        curve=jnp.asarray(np.concatenate([song.curve for _, song in songs])),
        valid=jnp.asarray(valid[..., 0] if alike else valid),
        batch_stats=None,
    )


def level_notes(rated: RatedSpan, population: np.ndarray) -> list[str]:
    """Compares the level of a rating with the population's curve of the same span, [n, 2].

    A difference of more than half the scale suggests another song, scale or order of columns.
    """
    notes = []
    for i, name in enumerate(DIMENSIONS):
        known = np.isfinite(rated.curve[:, i])
        if not known.any():
            continue
        own = float(rated.curve[known, i].mean())
        theirs = float(population[: len(known)][known, i].mean())
        if abs(own - theirs) > 1:
            notes.append(
                f"CHECK: {name} is {own:+.2f} on average, where the population's curve is "
                f"{theirs:+.2f}: is it a rating of this song, and on this scale?"
            )
    return notes
