"""The reader of DEAM's folders.

Layout (Aljanaki, Yang and Soleymani 2017), up to three levels below the root:

    MEMD_audio/{id}.mp3
    annotations averaged per song/dynamic (per second annotations)/{arousal,valence}.csv
    annotations per each rater/dynamic (per second annotations)/{arousal,valence}/{id}.csv
    metadata/metadata_{2013,2014,2015}.csv                                     (optional)

Tables have one column every 500 ms, starting with `sample_15000ms`: the value in [-1, 1] of the
half second that starts then. Averaged tables have one row per song, the others one row per rater.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, ratings, report, tables
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError

NAME = "DEAM"
START_S = 15.0
"""Time at which ratings start; earlier columns are not read."""

LAST_TRAINING_ID = 2000
"""Songs up to this id are excerpts for training; later ones are full-length test songs."""

DYNAMIC = "dynamic (per second annotations)"
AVERAGED = f"annotations averaged per song/{DYNAMIC}"
PER_RATER = f"annotations per each rater/{DYNAMIC}"
_DIMENSIONS = ("arousal", "valence")
_SCALE = (-1.0, 1.0)
_ONE_DIMENSION = "no usable row in the other dimension"


def read(
    root: str | Path, options: ReadOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """Reads all songs with usable ratings, ordered by id, and the findings.

    A song has the ratings of its raters, if the files identify them, followed by the released
    average as annotator "all". Files without a `WorkerId` column do not identify raters; their rows
    are dropped and counted. If a rater rated a song twice, the first rating is kept.

    Raises:
      UserError: The root is not DEAM's; a column or one of a pair of files is missing; no song has
        both ratings and audio although audio is required; or, if strict, any problem.
    """
    options = options or ReadOptions()
    root = layout.existing_root(root, NAME)
    journal = Journal(NAME, root, options)
    layout.require(root, NAME, (AVERAGED, PER_RATER))
    rated = _by_raters(journal, layout.find(root, PER_RATER))
    averaged = _averaged(journal, layout.find(root, AVERAGED))
    folder = layout.find(root, "MEMD_audio") or layout.find(root, "DEAM_audio")
    audio = layout.by_song(journal, layout.files(folder, layout.AUDIO_SUFFIXES), "audio file")
    texts = _texts(root)
    song_ids = sorted(rated.keys() | averaged.keys(), key=lambda name: (len(name), name))
    songs = [
        ratings.song_with_audio(
            journal,
            song_id,
            rated.get(song_id, []) + averaged.get(song_id, []),
            START_S,
            audio.get(song_id),
            texts=texts.get(song_id, {}),
        )
        for song_id in song_ids
    ]
    journal.count("songs with title, artist or genre", sum(name in texts for name in song_ids))
    return journal.close(songs, audio, "MEMD_audio/{id}.mp3")


def split_of(song: Song) -> str:
    """Returns the released split: "test" for full-length songs (ids above 2000), else "train"."""
    is_whole = song.song_id.isdigit() and int(song.song_id) > LAST_TRAINING_ID
    return "test" if is_whole else "train"


def _averaged(journal: Journal, folder: Path | None) -> dict[str, list[Rating]]:
    if folder is None:
        return {}
    rows = []
    for dimension in _DIMENSIONS:
        table = tables.read(_file(folder, f"{dimension}.csv"))
        ids = table.require("song_id")
        rows.append({})
        for row, values in _rows(journal, table):
            song_id = layout.plain_id(table.cell(row, ids))
            if song_id in rows[-1]:
                where = journal.name(table.path, table.numbers[row])
                what = f"song {song_id} has a second row; the first is used"
                journal.problem("two rows for one song", where, what)
            else:
                rows[-1][song_id] = values
        journal.count(f"rows of averaged {dimension}", len(table.rows))
    averaged = {}
    for song_id in sorted(rows[0].keys() | rows[1].keys()):
        where = f"{journal.name(folder)}, song {song_id}"
        if song_id not in rows[0] or song_id not in rows[1]:
            journal.drop(_ONE_DIMENSION, where)
        curve = ratings.joined(journal, where, rows[0].get(song_id), rows[1].get(song_id))
        if curve is not None:
            averaged[song_id] = [Rating(EVERYONE, curve)]
    return averaged


def _by_raters(journal: Journal, folder: Path | None) -> dict[str, list[Rating]]:
    if folder is None:
        return {}
    arousal, valence = (
        layout.by_song(journal, layout.files(_file(folder, name), (".csv",)), "table")
        for name in _DIMENSIONS
    )
    rated = {}
    for song_id, paths in layout.pairs(journal, arousal, valence):
        curves = _of_song(journal, song_id, [tables.read(path) for path in paths])
        if curves:
            rated[song_id] = curves
    journal.count("songs with a file of raters", len(arousal.keys() | valence.keys()))
    return rated


def _of_song(journal: Journal, song_id: str, pair: list[tables.Table]) -> list[Rating]:
    columns = [table.column("WorkerId") for table in pair]
    if None in columns:
        anonymous = pair[columns.index(None)]
        where = journal.name(anonymous.path)
        journal.drop("the file does not identify its raters", where, len(anonymous.rows))
        return []
    by_worker: list[dict[tuple[str, int], np.ndarray]] = []
    for table, column in zip(pair, columns, strict=True):
        by_worker.append({})
        workers = [table.cell(row, column) for row in range(len(table.rows))]
        for row, values in _rows(journal, table):
            worker = workers[row]
            if worker in ("", EVERYONE):
                where = journal.name(table.path, table.numbers[row], "WorkerId")
                what = f"'{worker}' is not an annotator's id; the row is left out"
                journal.problem("no annotator", where, what)
                continue
            # A rater's second row is paired with the second one of the other dimension.
            by_worker[-1][worker, workers[:row].count(worker)] = values
    where = f"{journal.name(pair[0].path.parents[1])}, song {song_id}"
    both = []
    for (worker, time), arousal in by_worker[0].items():
        valence = by_worker[1].pop((worker, time), None)
        if valence is None:
            journal.drop(_ONE_DIMENSION, f"{where}, {worker}")
            continue
        curve = ratings.joined(journal, f"{where}, {worker}", arousal, valence)
        if curve is not None:
            both.append(Rating(worker, curve))
    for worker, _ in by_worker[1]:
        journal.drop(_ONE_DIMENSION, f"{where}, {worker}")
    return ratings.one_each(journal, where, both)


def _rows(journal: Journal, table: tables.Table) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the index and the values from `START_S` on of each row of numbers within the scale."""
    columns, late = tables.sample_columns(table, round(START_S * 1000))
    tables.note_surplus(journal, table)
    for row in range(len(table.rows)):
        values = tables.values(journal, table, row, columns, _SCALE)
        if values is not None:
            # If a table begins later, the missing values count as a gap.
            yield row, np.concatenate([np.full(late, np.nan), values])


def _texts(root: Path) -> dict[str, dict[str, str]]:
    """Returns title, artist and genre by song id; empty where the three tables lack them."""
    texts = {}
    for year in (2013, 2014, 2015):
        path = layout.find(root, f"metadata/metadata_{year}.csv")
        if path is None:
            continue
        table = tables.read(path, lenient=True)
        ids = table.column("song_id", "id") or 0  # the first column, if it has another name
        columns = {
            "title": table.column("song title", "track", "title"),
            "artist": table.column("artist"),
            "genre": table.column("genre"),
        }
        for row in range(len(table.rows)):
            song_id = layout.plain_id(table.cell(row, ids))
            texts[song_id] = {name: table.cell(row, at) for name, at in columns.items()}
    return texts


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise UserError(
            f"{path} is missing; DEAM has one for each dimension: restore it from the download."
        )
    return path
