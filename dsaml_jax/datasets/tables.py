"""Reading of CSV tables, in which every fault is reported with its file, row and column."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsaml_jax.datasets.journal import Journal
from dsaml_jax.errors import UserError

_MISSING = ("", "nan", "na", "null")


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file with blanks around cells removed.

    Attributes:
      path: The file.
      header: Column names.
      rows: Cells of each row that is not blank; a row may have fewer or more than the header.
      numbers: Line number of each row in the file, counted from 1 with the header, as editors do.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]

    def column(self, *names: str) -> int | None:
        """Returns the index of the first of `names` that is a column; ignores case, `_`, blanks."""
        plain = [_plain(cell) for cell in self.header]
        wanted = [plain.index(_plain(name)) for name in names if _plain(name) in plain]
        return wanted[0] if wanted else None

    def require(self, *names: str) -> int:
        """Returns `column`, or raises UserError with the file and the columns that it has."""
        index = self.column(*names)
        if index is None:
            shown = ", ".join(self.header[:6]) + (", ..." if len(self.header) > 6 else "")
            raise UserError(
                f"{self.path} has no column {' or '.join(names)}; its columns are: {shown}."
            )
        return index

    def cell(self, row: int, column: int | None) -> str:
        """Returns a cell; empty if the row is too short or the column is None."""
        cells = self.rows[row]
        return cells[column] if column is not None and column < len(cells) else ""


def read(path: Path, lenient: bool = False) -> Table:
    """Reads a CSV file in UTF-8, with or without a byte-order mark.

    Args:
      path: The file.
      lenient: Whether bytes that are not UTF-8 are replaced instead of refused.

    Raises:
      UserError: The file cannot be read, is not UTF-8, or is empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace" if lenient else "strict")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    rows, numbers = [], []
    try:
        for cells in reader:
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped):
                rows.append(stripped)
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.line_num}, is not CSV: {error}.") from error
    if not rows:
        raise UserError(f"{path} is empty; expected a table with a header.")
    return Table(path, rows[0], tuple(rows[1:]), tuple(numbers[1:]))


def note_surplus(journal: Journal, table: Table) -> None:
    """Records rows that have more cells than the header has columns; surplus cells are not read."""
    width = len(table.header)
    for cells, number in zip(table.rows, table.numbers, strict=True):
        if any(cells[width:]):
            journal.problem(
                "more cells than columns",
                journal.name(table.path, number),
                f"{len(cells)} cells under {width} columns; the surplus is not read",
            )


def values(
    journal: Journal, table: Table, row: int, columns: Sequence[int], scale: tuple[float, float]
) -> np.ndarray | None:
    """Returns the numbers of one row, mapped from `scale` to [-1, 1]; NaN for missing cells.

    Returns:
      [columns] float64, or None if a cell holds text or a number outside `scale`, which is recorded
      as a problem.
    """
    numbers = np.empty(len(columns))
    for i, column in enumerate(columns):
        cell = table.cell(row, column)
        value = np.nan if cell.lower() in _MISSING else number(journal, table, row, column)
        if value is None:
            return None
        numbers[i] = value
    outlier = outside(numbers, scale)
    if outlier is not None:
        where = _place(journal, table, row, columns[outlier])
        what = outside_text(numbers[outlier], scale) + "; the row is left out"
        journal.problem("outside the scale", where, what)
        return None
    return to_unit(numbers, scale)


def number(journal: Journal, table: Table, row: int, column: int) -> float | None:
    """Returns the number in one cell, or None if there is none, which is recorded as a problem."""
    cell = table.cell(row, column)
    try:
        return float(cell)
    except ValueError:
        where = _place(journal, table, row, column)
        what = f"'{cell[:40]}' is not a number; the row is left out"
        journal.problem("not a number", where, what)
        return None


def outside(numbers: np.ndarray, scale: tuple[float, float]) -> int | None:
    """Returns the index of the first number outside `scale` by more than rounding, ignoring NaN."""
    slack = 1e-6 * (scale[1] - scale[0])
    outliers = np.flatnonzero((numbers < scale[0] - slack) | (numbers > scale[1] + slack))
    return int(outliers[0]) if len(outliers) else None


def outside_text(number: float, scale: tuple[float, float]) -> str:
    """Describes a value outside the scale, for messages."""
    return f"{number:g} is outside the scale from {scale[0]:g} to {scale[1]:g}"


def to_unit(numbers: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Maps [low, high] to [-1, 1] linearly."""
    low, high = scale
    return np.clip((2 * numbers - (low + high)) / (high - low), -1.0, 1.0)


def sample_columns(table: Table, start_ms: int) -> tuple[list[int], int]:
    """Finds the columns `sample_15000ms` and so on, from `start_ms` on, one every 500 ms.

    Returns:
      Their indices, and the number of half seconds from `start_ms` to the first of them.

    Raises:
      UserError: There is none, or they are not 500 ms apart.
    """
    matches = [(i, re.fullmatch(r"sample_(\d+)ms", cell)) for i, cell in enumerate(table.header)]
    times = {i: int(match[1]) for i, match in matches if match and int(match[1]) >= start_ms}
    if not times:
        raise UserError(
            f"{table.path} has no column sample_{start_ms}ms; expected one every 500 ms from there."
        )
    columns = list(times)
    for before, after in itertools.pairwise(columns):
        if times[after] - times[before] != 500:
            raise UserError(
                f"{table.path}: column {table.header[after]} does not follow "
                f"{table.header[before]} by 500 ms."
            )
    late = times[columns[0]] - start_ms
    if late % 500:
        raise UserError(
            f"{table.path}: column {table.header[columns[0]]} is not a multiple of 500 ms after "
            f"{start_ms} ms."
        )
    return columns, late // 500


def _place(journal: Journal, table: Table, row: int, column: int) -> str:
    name = table.header[column] if column < len(table.header) else str(column + 1)
    return journal.name(table.path, table.numbers[row], name)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")
