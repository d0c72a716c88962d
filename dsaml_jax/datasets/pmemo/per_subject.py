"""The ratings of single subjects in PMEmo's release of 2018.

    Annotations/Arousal/{id}-A.csv, Annotations/Valence/{id}-V.csv

One row a subject: who, a rating of the whole song, then a value every half second. How the release
names its columns is not documented, so these forms are read and any other is refused:

  - the first column names the subject (its name contains subject, user, worker, annotator or id);
  - a second column whose name contains "static" or "overall" is the rating of the whole song and
    is not read;
  - the rest is the curve: either one name that contains "dynamic" over as many cells as a row has
    (or no name at all), or a time over each cell (15.5, 16.0, ... or sample_15500ms).

The first 15 s were taken off by the makers, so curves start at 15 s whatever the times say of the
first half second: its start (15.0) or its end (15.5).
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
    """Ratings by song id: the subjects', then their mean as annotator "all".

    Args:
      journal: of the reading.
      folder: the folder of arousal; that of valence lies beside it.
      scale: lowest and highest value.

    Raises:
      UserError: there is no folder of valence, or a header is of no known form.
    """
    valence = folder.parent / "Valence"
    if not valence.is_dir():
        raise UserError(f"{valence} is missing; PMEmo has it beside {folder}.")
    found = [_tables(journal, folder, "-A"), _tables(journal, valence, "-V")]
    rated = {}
    for song_id in sorted(found[0].keys() | found[1].keys()):
        paths = [by_id.get(song_id) for by_id in found]
        if None in paths:
            present = next(path for path in paths if path is not None)
            journal.problem(
                "rated in one dimension only",
                journal.name(present),
                "the file of the other dimension is missing; its ratings are left out",
            )
            continue
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
    """Index of the first column of the curve.

    Raises:
      UserError: the header is of no known form.
    """
    names = [name.lower() for name in table.header]
    who = any(part in names[0] for part in _WHO)
    first = 2 if len(names) > 1 and any(part in names[1] for part in _WHOLE) else 1
    rest = [name for name in names[first:] if name]
    times = [_seconds(name) for name in rest]
    timed = (
        bool(rest)
        and None not in times
        and times[0] in _FIRST_TIMES
        and np.allclose(np.diff(times), 0.5)
    )
    one_name = len(rest) == 1 and "dynamic" in rest[0]
    if who and (timed or one_name or (not rest and first == 2)):
        return first
    shown = ", ".join(table.header[:6]) + (", ..." if len(table.header) > 6 else "")
    raise UserError(
        f"{table.path} has the columns {shown}, a form that is not known; expected a subject, then "
        "perhaps a static rating, then 'dynamic' or times from 15 s on every 0.5 s."
    )


def _tables(journal: Journal, folder: Path, ending: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in layout.files(folder, (".csv",)):
        if not path.stem.endswith(ending):
            told = f"expected a name that ends in {ending}.csv; the file is not read"
            journal.problem("a file of another name", journal.name(path), told)
            continue
        song_id = layout.plain_id(path.stem.removesuffix(ending))
        if song_id in found:
            told = f"a second table of song {song_id}, beside {found[song_id].name}, which is taken"
            journal.problem("two files for one song", journal.name(path), told)
        else:
            found[song_id] = path
    return found


def _rows(
    journal: Journal, table: tables.Table, scale: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Values by subject; of two rows of a subject the first."""
    first = curve_start(table)
    found: dict[str, np.ndarray] = {}
    for row, cells in enumerate(table.rows):
        where = journal.name(table.path, table.numbers[row])
        values = tables.values(journal, table, row, range(first, len(cells)), scale)
        subject = cells[0].removesuffix(".0")
        if subject in ("", EVERYONE):
            told = f"'{subject}' names nobody; the row is left out"
            journal.problem("no annotator", where, told)
        elif subject in found:
            journal.drop("the annotator's second rating of the song", where)
        elif values is not None:
            found[subject] = values
    return found


def _seconds(name: str) -> float | None:
    match = re.fullmatch(r"sample_(\d+)ms|(\d+(?:\.\d+)?) ?s?", name)
    if not match:
        return None
    return int(match[1]) / 1000 if match[1] else float(match[2])
