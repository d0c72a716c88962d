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

from dsaml_jax.datasets import layout, ratings, tables
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import EVERYONE, Rating
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
      UserError: There is no valence folder, or a header has an unknown form.
    """
    valence = folder.parent / "Valence"
    if not valence.is_dir():
        raise UserError(
            f"{valence} is missing; PMEmo has it next to {folder}: restore it from the download."
        )
    rated = {}
    by_id = _tables(journal, folder, "-A"), _tables(journal, valence, "-V")
    for song_id, paths in layout.pairs(journal, *by_id):
        rows = [_rows(journal, tables.read(path), scale) for path in paths]
        where = journal.name(folder.parent) + f", song {song_id}"
        for subject in sorted(rows[0].keys() ^ rows[1].keys()):
            journal.drop("no usable row in the other dimension", f"{where}, {subject}")
        both = [s for s in rows[0] if s in rows[1]]
        curves = {s: ratings.joined(journal, f"{where}, {s}", rows[0][s], rows[1][s]) for s in both}
        people = [Rating(s, curve) for s, curve in curves.items() if curve is not None]
        if people:
            rated[song_id] = [*people, ratings.consensus(people)]
    return rated


def curve_start(table: tables.Table) -> int:
    """Returns the index of the first column of the curve.

    Raises:
      UserError: The header has an unknown form.
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
    shown = ", ".join(table.header[:6]) + (", ..." if len(table.header) > 6 else "")
    raise UserError(
        f"{table.path} has the columns {shown}, which is an unknown form; expected a subject, an "
        "optional static rating, then 'dynamic' or times every 0.5 s from 15 s on."
    )


def _tables(journal: Journal, folder: Path, ending: str) -> dict[str, Path]:
    by_id: dict[str, Path] = {}
    for path in layout.files(folder, (".csv",)):
        if not path.stem.endswith(ending):
            what = f"expected a name that ends in {ending}.csv; the file is ignored"
            journal.problem("unexpected file name", journal.name(path), what)
            continue
        song_id = layout.plain_id(path.stem.removesuffix(ending))
        if song_id in by_id:
            what = f"a second table of song {song_id}, beside {by_id[song_id].name}, which is used"
            journal.problem("two files for one song", journal.name(path), what)
        else:
            by_id[song_id] = path
    return by_id


def _rows(
    journal: Journal, table: tables.Table, scale: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Returns values by subject; a subject's first row is used."""
    first = curve_start(table)
    by_subject: dict[str, np.ndarray] = {}
    for row, cells in enumerate(table.rows):
        where = journal.name(table.path, table.numbers[row])
        values = tables.values(journal, table, row, range(first, len(cells)), scale)
        subject = cells[0].removesuffix(".0")
        if subject in ("", EVERYONE):
            what = f"'{subject}' is not an annotator's id; the row is left out"
            journal.problem("no annotator", where, what)
        elif subject in by_subject:
            journal.drop("the annotator's second rating of the song", where)
        elif values is not None:
            by_subject[subject] = values
    return by_subject


def _seconds(name: str) -> float | None:
    match = re.fullmatch(r"sample_(\d+)ms|(\d+(?:\.\d+)?) ?s?", name)
    if not match:
        return None
    return int(match[1]) / 1000 if match[1] else float(match[2])
