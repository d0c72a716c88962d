"""The reader of individual subjects' ratings in PMEmo's 2018 release.

    Annotations/Arousal/{id}-A.csv, Annotations/Valence/{id}-V.csv

Each row is one subject: an id, a rating of the whole song, then a value every half second. The
release does not document its column names, so these forms are read and any other is refused:

  - the first column identifies the subject (its name contains subject, user, worker, annotator
    or id);
  - a second column whose name contains "static" or "overall" is the rating of the whole song and
    is ignored;
  - the rest is the curve: either one name that contains "dynamic" (or no name at all) for all
    cells of the row, or a time for each cell (15.5, 16.0, ... or sample_15500ms).

The authors removed the first 15 s, so curves start at 15 s whether the times denote the start
(15.0) or the end (15.5) of the first half second.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, rater_tables, ratings, tables
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import Rating
from dsaml_jax.errors import UserError

FOLDER = "Annotations/Arousal"
START_S = 15.0

_WHO = ("subject", "user", "worker", "annotator", "id")
_WHOLE = ("static", "overall")
_FIRST_TIMES = (15.0, 15.5)


def read(journal: Journal, folder: Path, scale: tuple[float, float]) -> dict[str, list[Rating]]:
    """Reads ratings by song id: the subjects' ratings, then their mean as annotator "all".

    Args:
      journal: Journal of the reading.
      folder: The arousal folder; the valence folder is next to it.
      scale: Lowest and highest value.

    Raises:
      UserError: There is no valence folder.
    """
    valence = folder.parent / "Valence"
    if not valence.is_dir():
        raise UserError(
            f"{valence} is missing; PMEmo has it next to {folder}: restore it from the download."
        )
    arousal, valence = (
        layout.by_song(journal, layout.files(path, (".csv",)), "table", ending)
        for path, ending in ((folder, "-A"), (valence, "-V"))
    )
    rated = rater_tables.read(journal, arousal, valence, scale, _form)
    return {song_id: [*people, ratings.consensus(people)] for song_id, people in rated.items()}


def curve_start(table: tables.Table) -> int:
    """Returns the index of the first column of the curve.

    Raises:
      TableFault: The header has an unknown form.
    """
    names = [name.lower() for name in table.header]
    has_subject = any(part in names[0] for part in _WHO)
    first = 2 if len(names) > 1 and any(part in names[1] for part in _WHOLE) else 1
    rest = [name for name in names[first:] if name]
    times = [seconds for seconds in map(_seconds, rest) if seconds is not None]
    timed = (
        len(times) == len(rest) > 0
        and times[0] in _FIRST_TIMES
        and np.allclose(np.diff(times), 0.5)
    )
    one_name = len(rest) == 1 and "dynamic" in rest[0]
    if has_subject and (timed or one_name or (not rest and first == 2)):
        return first
    raise tables.TableFault(
        table.path,
        f"has the columns {table.shown()}, which is an unknown form; expected a subject, an "
        "optional static rating, then 'dynamic' or times every 0.5 s from 15 s on",
    )


def _form(song_id: str, table: tables.Table) -> rater_tables.Form:
    del song_id  # all songs have the same form
    return rater_tables.Form(0, first=curve_start(table))


def _seconds(name: str) -> float | None:
    match = re.fullmatch(r"sample_(\d{1,9})ms|(\d{1,9}(?:[.,]\d+)?) ?s?", name, re.ASCII)
    if not match:
        return None
    return int(match[1]) / 1000 if match[1] else float(match[2].replace(",", "."))
