"""The reader of PMEmo's folders.

Layout of the 2019 release (Zhang et al. 2018), up to three levels below the root:

    chorus/{id}.mp3
    annotations/dynamic_annotations.csv   musicId, frameTime, Arousal(mean), Valence(mean)
    metadata.csv                          musicId, fileName, title, artist, ...      (optional)

`frameTime` is the END of the half second that a value describes: the last one of a song is within
half a second of the end of its audio. The first is 15.5 s, so ratings start at 15 s.

The 2018 release has each subject's ratings; see `per_subject`. Values are in [0, 1] and are mapped
to [-1, 1].
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, ratings, report, tables, tree
from dsaml_jax.datasets.ids import plain_id
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
    """`ReadOptions` and the release that the folder contains.

    Attributes:
      release: "2019" (averaged), "2018" (per subject), or "auto" for the one that is present.
    """

    release: str = "auto"

    def __post_init__(self):
        if isinstance(self.release, int):  # --config.data.builder.release=2019 is parsed as one
            object.__setattr__(self, "release", str(self.release))
        super().__post_init__()
        if self.release not in RELEASES:
            raise UserError(f"release is '{self.release}'; expected one of {', '.join(RELEASES)}.")


def read(
    root: str | Path, options: PmemoOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """Reads all songs with usable ratings, ordered by id, and the findings.

    In the 2019 release a song has one rating, the average, as annotator "all". In the 2018 release
    it has its subjects' ratings, followed by their mean as annotator "all".

    Raises:
      UserError: The root is not PMEmo's; a column is missing or unknown; both releases are present
        and none is chosen; no song has both ratings and audio although audio is required; or, if
        strict, any problem.
    """
    options = options or PmemoOptions()
    journal = layout.open_root(root, NAME, options)
    root = journal.root
    release, path = _release(root, options.release)
    if release == "2019":
        starts, rated = _averaged(journal, path)
    else:
        rated = per_subject.read(journal, path, SCALE)
        starts = dict.fromkeys(rated, per_subject.START_S)
    folder = layout.find(root, "chorus") or layout.find(root, "Chorus")
    audio = layout.by_song(journal, layout.files(folder, tree.AUDIO_SUFFIXES), "audio file")
    texts = _texts(journal)
    songs = [
        ratings.song_with_audio(
            journal,
            song_id,
            rated[song_id],
            starts[song_id],
            audio.get(song_id),
            texts=texts.get(song_id, {}),
        )
        for song_id in sorted(rated, key=lambda name: (len(name), name))
    ]
    journal.count("songs with title and artist", sum(name in texts for name in rated))
    return journal.close(songs, audio, "chorus/{id}.mp3")


def _release(root: Path, wanted: str) -> tuple[str, Path]:
    averaged = layout.find(root, AVERAGED) if wanted != "2018" else None
    # On case-insensitive file systems annotations/ and Annotations/ are the same folder, so the
    # releases are distinguished by its contents.
    subjects = layout.find(root, per_subject.FOLDER) if wanted != "2019" else None
    if averaged and subjects:
        raise UserError(
            f"{root} contains PMEmo's releases of 2019 ({averaged}) and of 2018 ({subjects}); "
            "choose one with release=2019 or release=2018."
        )
    if averaged:
        return "2019", averaged
    if subjects:
        return "2018", subjects
    expected = {"2019": (AVERAGED,), "2018": (per_subject.FOLDER,)}
    both = (AVERAGED, per_subject.FOLDER)
    return wanted, layout.require(root, NAME, expected.get(wanted, both))


def _averaged(journal: Journal, path: Path) -> tuple[dict[str, float], dict[str, list[Rating]]]:
    """Returns each song's start and average; a song with a bad row or a time gap is dropped."""
    table = tables.read(journal, path)
    ids, time = table.require("musicId"), table.require("frameTime")
    columns = [table.require("Arousal(mean)"), table.require("Valence(mean)")]
    tables.note_surplus(journal, table)
    journal.count("rows of averaged ratings", len(table.rows))
    by_song: dict[str, list[tuple[int, float, np.ndarray]]] = {}
    bad: set[str] = set()
    for row, line in enumerate(table.numbers):
        where = journal.name(path, line, "musicId")
        song_id = ratings.song(journal, where, table.cell(row, ids))
        if not song_id:
            continue
        time_s = tables.number(journal, table, row, time)
        value = None if time_s is None else tables.values(journal, table, row, columns, SCALE)
        if time_s is None or value is None:
            bad.add(song_id)
        else:
            by_song.setdefault(song_id, []).append((line, time_s, value))
    starts, rated = {}, {}
    for song_id, rows in by_song.items():
        where = f"{journal.name(path, rows[0][0])}, song {song_id}"
        times = np.array([time_s for _, time_s, _ in rows])
        start = float(times[0]) - 1 / RATING_HZ
        breaks = np.flatnonzero(~np.isclose(np.diff(times), 1 / RATING_HZ))
        if song_id in bad:
            journal.drop("a row of the song cannot be used", where, rows=len(rows))
            continue
        if start < 0 or len(breaks):
            at = breaks[0] + 1 if start >= 0 else 0
            what = (
                f"{times[at]:g} s does not follow {times[at - 1]:g} s by 0.5 s"
                if at
                else f"the half second that ends at {times[0]:g} s starts before the sound"
            )
            journal.problem(
                "a time gap" if at else "a time before the sound",
                journal.name(path, rows[at][0], "frameTime"),
                f"{what}; song {song_id} is left out",
                rows=len(rows),
            )
            continue
        values = np.stack([value for _, _, value in rows], axis=1)
        curve = ratings.joined(journal, where, *values, rows_each=len(rows))
        if curve is not None:
            starts[song_id] = start
            rated[song_id] = ratings.one_each(
                journal, where, [Rating(EVERYONE, curve)], rows_each=len(rows)
            )
    for song_id in sorted(bad - by_song.keys()):
        journal.drop("a row of the song cannot be used", f"{journal.name(path)}, song {song_id}")
    return starts, rated


def _texts(journal: Journal) -> dict[str, dict[str, str]]:
    table = tables.optional(journal, "metadata.csv")
    if table is None:
        return {}
    ids = table.column("musicId", "song_id", "id") or 0  # the first column, if it has another name
    title, artist = table.column("title"), table.column("artist", "artists")
    return {
        plain_id(table.cell(row, ids)): {
            "title": table.cell(row, title),
            "artist": table.cell(row, artist),
        }
        for row in range(len(table.rows))
    }
