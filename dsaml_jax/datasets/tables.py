"""Reading of CSV tables, in which every fault is reported with its file, row and column."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsaml_jax.datasets import layout
from dsaml_jax.datasets.ids import MISSING
from dsaml_jax.datasets.journal import Journal
from dsaml_jax.errors import UserError

_DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,15}", re.ASCII)
_LEFT_OUT = "the row is left out"


class TableFault(UserError):
    """A table that cannot be used, described without its name in `what`."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path} {what}.")
        self.path = path
        self.what = what


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
        """Returns `column`, or raises TableFault if there is none or another of the same name."""
        index = self.column(*names)
        if index is None:
            raise TableFault(
                self.path, f"has no column {' or '.join(names)}; its columns are: {self.shown()}"
            )
        plain = [_plain(cell) for cell in self.header]
        if plain.count(plain[index]) > 1:
            raise TableFault(
                self.path,
                f"has the column {self.header[index]} twice; remove or rename one of them",
            )
        return index

    def shown(self) -> str:
        """Returns the first column names, for messages."""
        names = [name[:40] for name in self.header[:6]]
        return ", ".join(names) + (", ..." if len(self.header) > 6 else "")

    def cell(self, row: int, column: int | None) -> str:
        """Returns a cell; empty if the row is too short or the column is None."""
        cells = self.rows[row]
        return cells[column] if column is not None and column < len(cells) else ""


def read(journal: Journal, path: Path, lenient: bool = False) -> Table:
    """Reads a CSV file in UTF-8, with or without a byte-order mark.

    The header's delimiter is recognized: a comma, a semicolon, a tab or a bar. Every line is one
    row, so an unclosed quotation mark affects no other row; rows that are not CSV are recorded as
    problems.

    Args:
      journal: Journal of the reading, which counts the rows.
      path: The file.
      lenient: For tables that hold no ratings: bytes that are not UTF-8 are replaced instead of
        refused, and rows are not counted.

    Raises:
      TableFault: The file cannot be read, is not UTF-8, is empty, or has an invalid header.
    """
    lines = re.split("\r\n|\r|\n", _text(path, lenient))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if numbered and numbered[0][1].startswith("sep="):  # Excel's note on the delimiter
        del numbered[0]
    if not numbered:
        raise TableFault(path, "is empty; expected a table with a header")
    delimiter = max(_DELIMITERS, key=lambda mark: _width(numbered[0][1], mark))
    header: tuple[str, ...] = ()
    rows, numbers = [], []
    for number, line in numbered:
        try:
            cells = _cells(line, delimiter, strict=True)
        except csv.Error as error:
            if not header:
                raise TableFault(path, f"has an invalid header: {error}") from error
            long = len(line) > csv.field_size_limit()
            expected = "shorter cells" if long else "quotation marks in pairs"
            cells, fault = None, f"not CSV ({error}); expected {expected}"
        else:
            fault = _fault(cells, header, delimiter)
        if cells is not None and not any(cells):
            continue
        if not header:
            header = cells or ()
            continue
        journal.rows_read += int(not lenient)
        if fault:
            where = journal.name(path, number)
            journal.problem("not CSV", where, f"{fault}; {_LEFT_OUT}", rows=int(not lenient))
        elif cells:
            rows.append(cells)
            numbers.append(number)
    return Table(path, header, tuple(rows), tuple(numbers))


def optional(journal: Journal, landmark: str) -> Table | None:
    """Reads a table that holds no ratings; None if it is absent or unusable, which is a problem."""
    path = layout.find(journal.root, landmark)
    try:
        return None if path is None else read(journal, path, lenient=True)
    except TableFault as fault:
        what = f"{fault.what}; titles and artists are left out"
        journal.problem("a table that cannot be used", journal.name(fault.path), what)
        return None


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
    journal: Journal,
    table: Table,
    row: int,
    columns: Sequence[int],
    scale: tuple[float, float],
    offset: int = 0,
) -> np.ndarray | None:
    """Returns the numbers of one row, mapped from `scale` to [-1, 1]; NaN for missing cells.

    Args:
      journal: Journal of the reading.
      table: The table.
      row: Index of the row.
      columns: Indices of the columns.
      scale: Lowest and highest value.
      offset: Number of missing values before the first column, as in a table that begins late.

    Returns:
      [offset + columns] float64, or None if a cell holds text or a number outside `scale`, which is
      recorded as a problem of one row.
    """
    numbers = np.full(offset + len(columns), np.nan)
    for i, column in enumerate(columns, offset):
        cell = table.cell(row, column)
        value = np.nan if cell.lower() in MISSING else number(journal, table, row, column)
        if value is None:
            return None
        numbers[i] = value
    outlier = outside(numbers, scale)
    if outlier is not None:
        where = _place(journal, table, row, columns[outlier - offset])
        what = f"{outside_text(numbers[outlier], scale)}; {_LEFT_OUT}"
        journal.problem("outside the scale", where, what, rows=1)
        return None
    return to_unit(numbers, scale)


def number(journal: Journal, table: Table, row: int, column: int) -> float | None:
    """Returns the finite number in one cell, or None, which is recorded as a problem of one row.

    A decimal comma is read as a decimal point.
    """
    cell = table.cell(row, column)
    if _NUMBER.fullmatch(cell) and math.isfinite(value := float(cell.replace(",", "."))):
        return value
    where = _place(journal, table, row, column)
    what = f"'{cell[:40]}' is not a number; {_LEFT_OUT}"
    journal.problem("not a number", where, what, rows=1)
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
      TableFault: There is none, or they are not 500 ms apart.
    """
    matches = [
        (i, re.fullmatch(r"sample_(\d{1,9})ms", cell)) for i, cell in enumerate(table.header)
    ]
    times = {i: int(match[1]) for i, match in matches if match and int(match[1]) >= start_ms}
    if not times:
        raise TableFault(
            table.path,
            f"has no column sample_{start_ms}ms; expected one every 500 ms from there; its columns "
            f"are: {table.shown()}",
        )
    columns = list(times)
    for before, after in itertools.pairwise(columns):
        if times[after] - times[before] != 500:
            raise TableFault(
                table.path,
                f"has a column {table.header[after]} that does not follow {table.header[before]} "
                "by 500 ms",
            )
    offset_ms = times[columns[0]] - start_ms
    if offset_ms % 500:
        raise TableFault(
            table.path,
            f"has a column {table.header[columns[0]]} that is not a multiple of 500 ms after "
            f"{start_ms} ms",
        )
    return columns, offset_ms // 500


def _place(journal: Journal, table: Table, row: int, column: int) -> str:
    name = table.header[column] if column < len(table.header) else str(column + 1)
    return journal.name(table.path, table.numbers[row], name)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")


def _text(path: Path, lenient: bool) -> str:
    if not path.is_file():  # reading a pipe would block
        raise TableFault(path, "is missing or not a file; expected a CSV table")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TableFault(path, f"cannot be read: {error.strerror}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise TableFault(path, "is UTF-16 text; save it as UTF-8")
    if b"\0" in content:
        raise TableFault(
            path, f"is not UTF-8 text (byte {content.index(0)} is NUL); save it as UTF-8"
        )
    try:
        return content.decode("utf-8-sig", "replace" if lenient else "strict")
    except UnicodeDecodeError as error:
        raise TableFault(
            path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


def _cells(line: str, delimiter: str, strict: bool) -> tuple[str, ...]:
    reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=strict)
    return tuple(cell.strip() for cell in next(reader))


def _width(line: str, delimiter: str) -> int:
    try:
        return len(_cells(line, delimiter, strict=False))
    except csv.Error:
        return 0


def _fault(cells: tuple[str, ...], header: tuple[str, ...], delimiter: str) -> str:
    """Returns why a row cannot be assigned to the header's columns; "" if it can."""
    if len(cells) == 1 < len(header) and any(mark in cells[0] for mark in _DELIMITERS):
        return f"one cell, '{cells[0][:40]}', under a header that is delimited by {delimiter!r}"
    numbers = [cell for cell in cells[1:] if cell]
    if delimiter != "," or len(numbers) < 4 or not all(_INTEGER.fullmatch(c) for c in numbers):
        return ""
    whole, fractions = numbers[::2], numbers[1::2]
    alternating = all(int(c) in (-1, 0, 1) for c in whole) and any(
        int(c) not in (-1, 0, 1) for c in fractions
    )
    if alternating or len(cells) > len(header) > 3:
        return "decimal commas among commas; save the table with semicolons or decimal points"
    return ""
