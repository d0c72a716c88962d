"""One listener's rating of one song: samples at any times, and their means over half seconds."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS, RATING_HZ
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import write_text

Scale = tuple[float, float]
"""Lowest and highest value of a rating scale."""

OWN_SCALE: Scale = (-1.0, 1.0)
"""The scale of the model, and of a `Rating`."""

HOLD_S = 1.0
"""A sample counts until the next one, but at most so long: longer intervals are gaps."""

LEAST_COVER = 0.5
"""Share of a half second that samples must cover for it to count as rated."""


class Bins(NamedTuple):
    """Means of a rating over the half seconds of the audio.

    Attributes:
      time_s: [m] start of each half second, 0, 0.5, 1, ...
      curve: [m, 2] float32, (arousal, valence); NaN where the listener did not rate.
    """

    time_s: np.ndarray
    curve: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Rating:
    """Samples of what a listener felt while a song played, on the scale -1 to 1.

    Attributes:
      time_s: [n] float64, seconds from the start of the audio, increasing.
      arousal: [n] float32; NaN where it was not rated, perhaps throughout.
      valence: [n] float32, likewise.
      hold_s: how long a sample counts if no other follows; infinite for tools that write a sample
        only when the value changes.
      source: where it was read from, for messages.
      media: name of the media file that the rating's own file states; "" if it states none.
      notes: sentences about what was left out when it was read.

    Raises:
      UserError: the arrays do not fit together, a time is negative, or times do not increase; a
        value is outside -1 to 1; nothing is rated.
    """

    time_s: np.ndarray
    arousal: np.ndarray
    valence: np.ndarray
    hold_s: float = HOLD_S
    source: str = "the rating"
    media: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        times = np.asarray(self.time_s, np.float64)
        columns = [np.asarray(getattr(self, name), np.float32) for name in DIMENSIONS]
        if times.ndim != 1 or any(column.shape != times.shape for column in columns):
            raise UserError(
                f"{self.source}: time_s, arousal and valence have the shapes "
                f"{[times.shape, *(column.shape for column in columns)]}; expected one value each "
                "for every sample."
            )
        if not len(times) or not np.isfinite(np.stack(columns)).any():
            raise UserError(f"{self.source} rates nothing; expected at least one sample.")
        if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
            raise UserError(
                f"{self.source}: the times must be finite, from 0 s on, and increase from sample "
                "to sample."
            )
        for name, column in zip(DIMENSIONS, columns, strict=True):
            if (np.abs(column[~np.isnan(column)]) > 1 + 1e-6).any():
                raise UserError(
                    f"{self.source}: {name} goes from {np.nanmin(column):g} to "
                    f"{np.nanmax(column):g}; expected -1 to 1."
                )
            object.__setattr__(self, name, column)
        object.__setattr__(self, "time_s", times)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions that are rated anywhere."""
        return tuple(name for name in DIMENSIONS if np.isfinite(getattr(self, name)).any())

    def bins(self) -> Bins:
        """Averages the samples over half seconds, from the start of the audio on.

        Every sample holds until the next, at most `hold_s` long, and a NaN holds nothing. With x
        this step function of time and C the part of a half second B that it covers, the mean is

            y = 1/|C| ∫_C x(t) dt,

        which counts if |C| is at least half of B. So samples at 20 Hz give the means of ten,
        uneven ones are weighted by how long they held, and samples at 2 Hz stay as they are.
        """
        ends = _ends(self)
        count = int(np.ceil(ends[-1] * RATING_HZ - 1e-6))
        edges = np.arange(count + 1) / RATING_HZ
        columns = [
            _means(edges, self.time_s, ends, np.asarray(getattr(self, name), np.float64))
            for name in DIMENSIONS
        ]
        return Bins(edges[:-1], np.stack(columns, axis=1).astype(np.float32))


def _means(edges: np.ndarray, starts: np.ndarray, ends: np.ndarray, values: np.ndarray):
    """Returns the means of a step function between edges; NaN where it covers too little."""
    rated = np.isfinite(values)
    x = np.where(rated, values, 0)
    knots = np.stack([starts, ends], axis=1).reshape(-1)

    def integral(heights: np.ndarray) -> np.ndarray:
        """Integrates a function that is `heights` from starts to ends, and 0 between."""
        total = np.concatenate([[0], np.cumsum(heights * (ends - starts))])
        at_knots = np.stack([total[:-1], total[1:]], axis=1).reshape(-1)
        return np.diff(np.interp(edges, knots, at_knots))

    cover = integral(rated.astype(float))
    enough = cover * RATING_HZ >= LEAST_COVER - 1e-6
    means = np.where(enough, integral(x) / np.where(enough, cover, 1), np.nan)
    # Rounding errors of the integral must not move a value out of the samples' range.
    return np.clip(means, values[rated].min(), values[rated].max()) if rated.any() else means


def joined(ratings: Sequence[Rating]) -> Rating:
    """Joins an arousal rating and a valence rating of the same song.

    Raises:
      UserError: there are more than two, or they rate the same dimension.
    """
    if len(ratings) == 1:
        return ratings[0]
    rated = [dimension for rating in ratings for dimension in rating.dimensions]
    names = " and ".join(rating.source for rating in ratings)
    if len(rated) != len(set(rated)):
        raise UserError(
            f"{names} rate the same song and the same dimension twice; give one rating of each."
        )
    times = np.unique(np.concatenate([_knots(rating) for rating in ratings]))
    columns = {name: np.full(len(times), np.nan) for name in DIMENSIONS}
    for rating in ratings:
        (name,) = rating.dimensions
        columns[name] = _held(rating, getattr(rating, name), times)
    return Rating(
        times,
        **columns,
        hold_s=np.inf,  # where a sample ends without another, a NaN follows
        source=names,
        media=ratings[0].media,
        notes=tuple(note for rating in ratings for note in rating.notes),
    )


def _ends(rating: Rating) -> np.ndarray:
    """Returns the time until which each sample counts."""
    intervals = np.diff(rating.time_s)
    last = min(float(np.median(intervals)) if len(intervals) else 1 / RATING_HZ, HOLD_S)
    return rating.time_s + np.minimum(np.append(intervals, last), rating.hold_s)


def _knots(rating: Rating) -> np.ndarray:
    """Returns the times of the samples, and those at which one ends without another."""
    ends = _ends(rating)
    return np.concatenate([rating.time_s, ends[np.append(ends[:-1] < rating.time_s[1:], True)]])


def _held(rating: Rating, values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns the value that a rating holds at each time; NaN in its gaps, before and after it."""
    place = np.searchsorted(rating.time_s, times, side="right") - 1
    holds = (place >= 0) & (times < _ends(rating)[np.maximum(place, 0)])
    return np.where(holds, values[np.maximum(place, 0)], np.nan)


def write_rating(path: str | Path, rating: Rating, scale: Scale = OWN_SCALE) -> None:
    """Writes a rating as the CSV that `read_rating` reads without flags, atomically.

    Columns: time_s and the dimensions that are rated; the scale is in a comment before them.
    """
    low, high = scale
    out = io.StringIO()
    out.write(f"# scale: {low:g} to {high:g}\n")
    if rating.hold_s != HOLD_S:
        out.write(f"# hold_s: {rating.hold_s:g}\n")
    if rating.media:
        out.write(f"# media: {' '.join(rating.media.split())}\n")
    out.write(",".join(["time_s", *rating.dimensions]) + "\n")
    columns = [
        low + (getattr(rating, name).astype(np.float64) + 1) / 2 * (high - low)
        for name in rating.dimensions
    ]
    for time, *values in zip(rating.time_s.tolist(), *columns, strict=True):
        cells = ("" if np.isnan(value) else f"{value:.9g}" for value in values)
        out.write(f"{round(time, 6)!r}," + ",".join(cells) + "\n")
    write_text(Path(path), out.getvalue())
