"""Reading of one song's two tables, arousal and valence, with one row for each annotator."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout, ratings, tables
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.datasets.schema import Rating

ONE_DIMENSION = "no usable row in the other dimension"


@dataclasses.dataclass(frozen=True)
class Form:
    """The columns of a table that hold annotators and values.

    Attributes:
      rater: Column that identifies the annotator; None if the file does not identify its raters.
      values: Columns of the values; None for all cells of the row from `first` on.
      first: First column of the values if `values` is None.
      offset: Half seconds from the start of the ratings to the first value.
    """

    rater: int | None
    values: Sequence[int] | None = None
    first: int = 0
    offset: int = 0


def read(
    journal: Journal,
    arousal: Mapping[str, Path],
    valence: Mapping[str, Path],
    scale: tuple[float, float],
    form_of: Callable[[str, tables.Table], Form],
) -> dict[str, list[Rating]]:
    """Reads the annotators' ratings by song id; an annotator's first rating of a song is used.

    A table that cannot be used is a problem, and its song has no ratings here.

    Args:
      journal: Journal of the reading.
      arousal: Tables by song id.
      valence: Tables by song id.
      scale: Lowest and highest value.
      form_of: Returns the form of a song's table, or raises TableFault.
    """
    rated = {}
    for song_id, paths in layout.pairs(journal, arousal, valence):
        usable = [_usable(journal, song_id, path, form_of) for path in paths]
        pair = [table for table in usable if table is not None]
        if len(pair) < len(usable):
            for table, _ in pair:
                reason = "the table of the other dimension cannot be used"
                rows = len(table.rows)
                journal.drop(reason, journal.name(table.path), rows, rows)
            continue
        people = _of_song(journal, song_id, pair, scale)
        if people:
            rated[song_id] = people
    return rated


def _usable(
    journal: Journal, song_id: str, path: Path, form_of: Callable[[str, tables.Table], Form]
) -> tuple[tables.Table, Form] | None:
    table = None
    try:
        table = tables.read(journal, path)
        return table, form_of(song_id, table)
    except tables.TableFault as fault:
        what = f"{fault.what}; song {song_id} is left without its annotators"
        rows = 0 if table is None else len(table.rows)
        journal.problem("a table that cannot be used", journal.name(path), what, rows)
        return None


def _of_song(
    journal: Journal,
    song_id: str,
    pair: list[tuple[tables.Table, Form]],
    scale: tuple[float, float],
) -> list[Rating]:
    anonymous = [table for table, form in pair if form.rater is None]
    if anonymous:
        where = journal.name(anonymous[0].path)
        rows = sum(len(table.rows) for table, _ in pair)
        reason = "the file does not identify its raters"
        journal.drop(reason, where, len(anonymous[0].rows), rows)
        return []
    arousal, valence = (_by_rater(journal, table, form, scale) for table, form in pair)
    where = f"{journal.name(pair[0][0].path.parents[1])}, song {song_id}"
    rated = []
    for key in [*arousal, *(key for key in valence if key not in arousal)]:
        place = f"{where}, {key[0]}"
        if key not in arousal or key not in valence:
            journal.drop(ONE_DIMENSION, place, rows=1)
            continue
        curve = ratings.joined(journal, place, arousal[key], valence[key], rows_each=2)
        if curve is not None:
            rated.append(Rating(key[0], curve))
    return ratings.one_each(journal, where, rated, rows_each=2)


def _by_rater(
    journal: Journal, table: tables.Table, form: Form, scale: tuple[float, float]
) -> dict[tuple[str, int], np.ndarray]:
    """Returns the values of usable rows by (annotator, number of the annotator's earlier rows).

    This pairs an annotator's second row with the second one of the other dimension.
    """
    assert form.rater is not None
    if form.values is not None:
        tables.note_surplus(journal, table)
    by_rater = {}
    earlier: collections.Counter[str] = collections.Counter()
    for row, cells in enumerate(table.rows):
        where = journal.name(table.path, table.numbers[row], table.header[form.rater])
        rater = ratings.annotator(journal, where, table.cell(row, form.rater))
        if not rater:
            continue
        columns = range(form.first, len(cells)) if form.values is None else form.values
        values = tables.values(journal, table, row, columns, scale, form.offset)
        if values is not None:
            by_rater[rater, earlier[rater]] = values
        earlier[rater] += 1
    return by_rater
