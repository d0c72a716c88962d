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

from pathlib import Path

from dsaml_jax.datasets import layout, rater_tables, ratings, report, tables, tree
from dsaml_jax.datasets.ids import plain_id
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.schema import DIMENSIONS, EVERYONE, Rating, Song
from dsaml_jax.errors import UserError

NAME = "DEAM"
START_S = 15.0
"""Time at which ratings start; earlier columns are not read."""

LAST_ANONYMOUS_ID = 1000
"""Tables of songs up to this id do not identify their raters."""

LAST_TRAINING_ID = 2000
"""Songs up to this id are excerpts for training; later ones are full-length test songs."""

DYNAMIC = "dynamic (per second annotations)"
AVERAGED = f"annotations averaged per song/{DYNAMIC}"
PER_RATER = f"annotations per each rater/{DYNAMIC}"
_SCALE = (-1.0, 1.0)


def read(
    root: str | Path, options: ReadOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """Reads all songs with usable ratings, ordered by id, and the findings.

    A song has the ratings of its raters, if the files identify them, followed by the released
    average as annotator "all". Up to song 1000, files have no `WorkerId` column and do not identify
    raters; their rows are dropped and counted. A later file without it is a problem. If a rater
    rated a song twice, the first rating is kept.

    Raises:
      UserError: The root is not DEAM's; a column or one of a pair of files is missing; no song has
        both ratings and audio although audio is required; or, if strict, any problem.
    """
    options = options or ReadOptions()
    journal = layout.open_root(root, NAME, options)
    root = journal.root
    layout.require(root, NAME, (AVERAGED, PER_RATER))
    rated = _by_raters(journal, layout.find(root, PER_RATER))
    averaged = _averaged(journal, layout.find(root, AVERAGED))
    folder = layout.find(root, "MEMD_audio") or layout.find(root, "DEAM_audio")
    audio = layout.by_song(journal, layout.files(folder, tree.AUDIO_SUFFIXES), "audio file")
    texts = _texts(journal)
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
    for dimension in DIMENSIONS:
        table = tables.read(journal, _file(folder, f"{dimension}.csv"))
        ids = table.require("song_id")
        columns, offset = tables.sample_columns(table, round(START_S * 1000))
        tables.note_surplus(journal, table)
        rows.append({})
        for row in range(len(table.rows)):
            where = journal.name(table.path, table.numbers[row])
            song_id = ratings.song(journal, where, table.cell(row, ids))
            if not song_id:
                continue
            values = tables.values(journal, table, row, columns, _SCALE, offset)
            if values is None:
                continue
            if song_id in rows[-1]:
                what = f"song {song_id} has a second row; the first is used"
                journal.problem("two rows for one song", where, what, rows=1)
            else:
                rows[-1][song_id] = values
        journal.count(f"rows of averaged {dimension}", len(table.rows))
    averaged = {}
    for song_id in sorted(rows[0].keys() | rows[1].keys()):
        where = f"{journal.name(folder)}, song {song_id}"
        if song_id not in rows[0] or song_id not in rows[1]:
            journal.drop(rater_tables.ONE_DIMENSION, where, rows=1)
            continue
        curve = ratings.joined(journal, where, rows[0][song_id], rows[1][song_id], rows_each=2)
        if curve is not None:
            averaged[song_id] = ratings.one_each(journal, where, [Rating(EVERYONE, curve)], 2)
    return averaged


def _by_raters(journal: Journal, folder: Path | None) -> dict[str, list[Rating]]:
    if folder is None:
        return {}
    arousal, valence = (
        layout.by_song(journal, layout.files(_file(folder, name), (".csv",)), "table")
        for name in DIMENSIONS
    )
    journal.count("songs with a file of raters", len(arousal.keys() | valence.keys()))
    return rater_tables.read(journal, arousal, valence, _SCALE, _form)


def _form(song_id: str, table: tables.Table) -> rater_tables.Form:
    columns, offset = tables.sample_columns(table, round(START_S * 1000))
    rater = None if table.column("WorkerId") is None else table.require("WorkerId")
    may_be_anonymous = song_id.isdigit() and int(song_id[:9]) <= LAST_ANONYMOUS_ID
    if rater is None and not may_be_anonymous:
        raise tables.TableFault(
            table.path,
            f"has no column WorkerId, as those of songs above {LAST_ANONYMOUS_ID} have; its "
            f"columns are: {table.shown()}",
        )
    return rater_tables.Form(rater, columns, offset=offset)


def _texts(journal: Journal) -> dict[str, dict[str, str]]:
    """Returns title, artist and genre by song id; empty where the three tables lack them."""
    texts = {}
    for year in (2013, 2014, 2015):
        table = tables.optional(journal, f"metadata/metadata_{year}.csv")
        if table is None:
            continue
        ids = table.column("song_id", "id") or 0  # the first column, if it has another name
        columns = {
            "title": table.column("song title", "track", "title"),
            "artist": table.column("artist"),
            "genre": table.column("genre"),
        }
        for row in range(len(table.rows)):
            song_id = plain_id(table.cell(row, ids))
            texts[song_id] = {name: table.cell(row, at) for name, at in columns.items()}
    return texts


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise UserError(
            f"{path} is missing; DEAM has one for each dimension: restore it from the download."
        )
    return path
