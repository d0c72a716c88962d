"""The reader of MERP's folder.

Layout (Koh et al. 2023), up to three levels below the root:

    audio/{song_id}.wav
    annotations_filtered.parquet, annotations_raw.parquet

Each row is one rater's rating of one song: `song_id`, arrays `valence` and `arousal` with ten
values per second from the start of the song, and a column that identifies the rater. Filtered
arrays may cover only the first part of the song. Requires pyarrow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, ratings, report, resample, tables, tree
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.schema import DIMENSIONS, RATING_HZ, Rating, Song
from dsaml_jax.errors import UserError

NAME = "MERP"
SOURCE_HZ = 10.0
KINDS = ("filtered", "raw")
_ROLES = ("rater", "worker", "annotator", "participant", "listener", "subject", "user")
RATER_COLUMNS = tuple(name for role in _ROLES for name in (f"{role}_id", f"{role}id", role))
"""Names of the column that identifies the rater, in order of preference; case is ignored."""


@dataclasses.dataclass(frozen=True)
class MerpOptions(ReadOptions):
    """`ReadOptions` and options specific to MERP.

    Attributes:
      annotations: "filtered" (the authors' cleaned ratings) or "raw".
      rater_column: The column that identifies the rater; if empty, the first of `RATER_COLUMNS`.
      low: Lower end of the scale, which is mapped to -1.
      high: Upper end of the scale, which is mapped to 1.
    """

    annotations: str = "filtered"
    rater_column: str = ""
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.annotations not in KINDS:
            expected = " or ".join(KINDS)
            raise UserError(f"annotations is '{self.annotations}'; expected {expected}.")
        if not self.low < self.high:
            raise UserError(
                f"low is {self.low:g} and high is {self.high:g}; low must be lower than high."
            )


def read(
    root: str | Path, options: MerpOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """Reads all songs with usable ratings, ordered by id, and the findings.

    A song has its raters' ratings at two per second (means of five values), followed by their mean
    as annotator "all". If a rater rated a song twice, the first rating is kept.

    Raises:
      UserError: The root is not MERP's; pyarrow or a column is missing; no song has both ratings
        and audio although audio is required; or, if strict, any problem.
    """
    options = options or MerpOptions()
    journal = layout.open_root(root, NAME, options)
    root = journal.root
    path = layout.require(root, NAME, (f"annotations_{options.annotations}.parquet",))
    rated: dict[str, list[Rating]] = {}
    for song_id, rating in _rated(journal, path, options):
        rated.setdefault(song_id, []).append(rating)
    folder = layout.find(root, "audio")
    audio = layout.by_song(journal, layout.files(folder, tree.AUDIO_SUFFIXES), "audio file")
    songs = []
    for song_id in sorted(rated):
        people = ratings.one_each(journal, f"{journal.name(path)}, song {song_id}", rated[song_id])
        everybody = [*people, ratings.consensus(people)]
        songs.append(ratings.song_with_audio(journal, song_id, everybody, 0.0, audio.get(song_id)))
    journal.count("songs that are also in DEAM", sum(name.startswith("deam_") for name in rated))
    return journal.close(songs, audio, "audio/{song_id}.wav")


def _rated(journal: Journal, path: Path, options: MerpOptions) -> Iterator[tuple[str, Rating]]:
    columns = _columns(path, options.rater_column)
    scale = (options.low, options.high)
    _check_scale(path, columns["arousal"] + columns["valence"], scale)
    journal.count(f"rows of {path.name}", len(columns["song_id"]))
    journal.rows_read += len(columns["song_id"])
    for row, song in enumerate(columns["song_id"]):
        where = journal.name(path, row + 1)
        song_id = ratings.song(journal, where, song)
        if not song_id:
            continue
        rater = ratings.annotator(journal, where, columns["rater"][row])
        if not rater:
            continue
        curve = ratings.checked_curve(
            journal, where, {name: columns[name][row] for name in DIMENSIONS}, scale, "column "
        )
        if curve is None:
            continue
        if len(curve) < SOURCE_HZ / RATING_HZ:
            journal.drop("shorter than half a second", where, rows=1)
            continue
        yield song_id, Rating(rater, resample.from_rate(curve, SOURCE_HZ))


def _check_scale(path: Path, curves: list, scale: tuple[float, float]) -> None:
    """Raises UserError if most curves leave the scale: the file then uses another one."""
    low, high, outside, readable = np.inf, -np.inf, 0, 0
    for curve in curves:
        numbers = [ratings.as_number(value) for value in curve] if isinstance(curve, list) else []
        finite = np.array([n for n in numbers if n is not None and np.isfinite(n)])
        if len(finite):
            low, high = min(low, finite.min()), max(high, finite.max())
            outside += tables.outside(finite, scale) is not None
            readable += 1
    if 2 * outside > readable:
        raise UserError(
            f"{path} has values from {low:g} to {high:g}, {outside} of {readable} curves being "
            f"outside the scale from {scale[0]:g} to {scale[1]:g}; set low "
            "and high in data.builder to the ends of its scale, such as {'low': 1, 'high': 9}."
        )


def _columns(path: Path, rater_column: str) -> dict[str, list]:
    """Returns the four columns as lists; the key of the rater column is "rater"."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"reading {path} requires pyarrow: pip install -r requirements-merp.txt."
        ) from error
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is not a file; expected a Parquet file.")
    try:
        names = parquet.read_schema(path).names
        rater = _column(path, names, (rater_column,) if rater_column else RATER_COLUMNS)
        shown = ", ".join(names)
        for name in ("song_id", "arousal", "valence"):
            if name not in names:
                raise UserError(f"{path} has no column {name}; its columns are: {shown}.")
        if rater is None:
            missing = rater_column or "with a known name that identifies the rater"
            raise UserError(
                f"{path} has no column {missing}; its columns are: {shown}; set rater_column to "
                "the right one."
            )
        table = parquet.read_table(path, columns=["song_id", "arousal", "valence", rater])
        lists = {name: table.column(name).to_pylist() for name in ("song_id", "arousal", "valence")}
        return lists | {"rater": table.column(rater).to_pylist()}
    # OverflowError: a time that Python cannot hold.
    except (ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a Parquet file: {reason}.") from error


def _column(path: Path, names: list[str], wanted: tuple[str, ...]) -> str | None:
    """Returns the first column with a wanted name, whatever its case; None if there is none.

    Raises:
      UserError: Two columns differ in case alone.
    """
    for name in wanted:
        found = [column for column in names if column.lower() == name.lower()]
        if name in found and len(wanted) == 1:  # named exactly
            return name
        if len(found) > 1:
            raise UserError(
                f"{path} has the columns {' and '.join(found)}; set rater_column in data.builder "
                "to the one that identifies the rater."
            )
        if found:
            return found[0]
    return None
