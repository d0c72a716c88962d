"""PMEmo's own folders, read into songs and ratings.

Layout of the release of 2019 (Zhang and others 2018), up to three folders below the root:

    chorus/{id}.mp3
    annotations/dynamic_annotations.csv   musicId, frameTime, Arousal(mean), Valence(mean)
    metadata.csv                          musicId, fileName, title, artist, ...      (optional)

`frameTime` is the END of the half second that a value is for: the last one of a song lies within
half a second before the end of its audio. The first is 15.5 s, so ratings start at 15 s.

The release of 2018 has what each subject rated; see `per_subject`. Values are in [0, 1] and are
mapped to [-1, 1].
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, ratings, report, tables
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.pmemo import per_subject
from dsaml_jax.datasets.schema import EVERYONE, RATING_HZ, Rating, Song
from dsaml_jax.errors import UserError

NAME = "PMEmo"
SCALE = (0.0, 1.0)
AVERAGED = "annotations/dynamic_annotations.csv"
RELEASES = ("auto", "2018", "2019")


@dataclasses.dataclass(frozen=True)
class PmemoOptions(ReadOptions):
    """`ReadOptions`, and which release the folder holds.

    Attributes:
      release: "2019" (averaged), "2018" (per subject), or "auto" for the one that is there.
    """

    release: str = "auto"

    def __post_init__(self):
        if self.release not in RELEASES:
            raise UserError(f"release is '{self.release}'; expected one of {', '.join(RELEASES)}.")


def read(
    root: str | Path, options: PmemoOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """All songs with usable ratings, ordered by id, and what was found.

    From the release of 2019 a song has one rating, the average, as annotator "all". From that of
    2018 it has its subjects' ratings, and last their mean as annotator "all".

    Raises:
      UserError: the root is not PMEmo's, a column is missing or not understood, both releases are
        there and none is chosen, no song has both ratings and audio though audio is required; or,
        if strict, any problem.
    """
    options = options or PmemoOptions()
    root = layout.existing_root(root, NAME)
    journal = Journal(NAME, root, options)
    release, path = _release(root, options.release)
    if release == "2019":
        starts, rated = _averaged(journal, path)
    else:
        rated = per_subject.read(journal, path, SCALE)
        starts = dict.fromkeys(rated, per_subject.START_S)
    folder = layout.find(root, "chorus") or layout.find(root, "Chorus")
    audio = layout.by_song(journal, layout.files(folder, layout.AUDIO_SUFFIXES), "audio file")
    texts = _texts(root)
    songs = [
        ratings.song_with_audio(
            journal,
            song_id,
            rated[song_id],
            starts[song_id],
            audio.get(song_id),
            **texts.get(song_id, {}),
        )
        for song_id in sorted(rated, key=lambda name: (len(name), name))
    ]
    journal.count("songs with title and artist", sum(name in texts for name in rated))
    return journal.close(songs, audio, "chorus/{id}.mp3")


def _release(root: Path, wanted: str) -> tuple[str, Path]:
    averaged = layout.find(root, AVERAGED) if wanted != "2018" else None
    # Where case does not matter, annotations/ and Annotations/ are one: tell them by content.
    subjects = layout.find(root, per_subject.FOLDER) if wanted != "2019" else None
    if averaged and subjects:
        raise UserError(
            f"{root} holds PMEmo's releases of 2019 ({averaged}) and of 2018 ({subjects}); say "
            "which with release=2019 or release=2018."
        )
    if averaged:
        return "2019", averaged
    if subjects:
        return "2018", subjects
    expected = {"2019": (AVERAGED,), "2018": (per_subject.FOLDER,)}
    both = (AVERAGED, per_subject.FOLDER)
    return wanted, layout.require(root, NAME, expected.get(wanted, both))


def _averaged(journal: Journal, path: Path) -> tuple[dict[str, float], dict[str, list[Rating]]]:
    """Start and average of each song; a song with a bad row or a break in time is dropped."""
    table = tables.read(path)
    ids, time = table.require("musicId"), table.require("frameTime")
    columns = [table.require("Arousal(mean)"), table.require("Valence(mean)")]
    tables.note_surplus(journal, table)
    journal.count("rows of averaged ratings", len(table.rows))
    by_song: dict[str, list[tuple[int, float, np.ndarray]]] = {}
    bad: set[str] = set()
    for row, line in enumerate(table.numbers):
        song_id = layout.plain_id(table.cell(row, ids))
        at = tables.number(journal, table, row, time)
        value = tables.values(journal, table, row, columns, SCALE)
        if at is None or value is None:
            bad.add(song_id)
        else:
            by_song.setdefault(song_id, []).append((line, at, value))
    starts, rated = {}, {}
    for song_id, rows in by_song.items():
        where = f"{journal.name(path, rows[0][0])}, song {song_id}"
        times = np.array([at for _, at, _ in rows])
        curve = ratings.joined(journal, where, *np.stack([value for _, _, value in rows], axis=1))
        breaks = np.flatnonzero(~np.isclose(np.diff(times), 1 / RATING_HZ))
        if song_id in bad:
            journal.drop("a row of the song cannot be used", where)
        elif len(breaks):
            line, at, _ = rows[breaks[0] + 1]
            told = f"{at:g} s does not follow {times[breaks[0]]:g} s by 0.5 s; song {song_id} is "
            place = journal.name(path, line, "frameTime")
            journal.problem("a break in time", place, told + "left out")
        elif curve is not None:
            starts[song_id] = float(times[0]) - 1 / RATING_HZ
            rated[song_id] = [Rating(EVERYONE, curve)]
    for song_id in sorted(bad - by_song.keys()):
        journal.drop("a row of the song cannot be used", f"{journal.name(path)}, song {song_id}")
    return starts, rated


def _texts(root: Path) -> dict[str, dict[str, str]]:
    path = layout.find(root, "metadata.csv")
    if path is None:
        return {}
    table = tables.read(path, lenient=True)
    ids = table.require("musicId", "song_id", "id")
    title, artist = table.column("title"), table.column("artist", "artists")
    return {
        layout.plain_id(table.cell(row, ids)): {
            "title": table.cell(row, title),
            "artist": table.cell(row, artist),
        }
        for row in range(len(table.rows))
    }
