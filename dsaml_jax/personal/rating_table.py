"""A rating as its file states it, before units and scales are converted."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.errors import UserError
from dsaml_jax.personal.rating import HOLD_S, Scale

UNRATED = ("", "nan", "na", "n/a", "null", "none", ".")
"""Cells that say that nothing was rated, in lower case."""

VALUE_COLUMNS = ("value", "rating")
"""Columns of tools that rate one dimension and do not say which."""

_NUMBER = r"([+-]?\d+(?:\.\d+)?)"
_SCALE = re.compile(rf"\s*{_NUMBER}\s*(?:to|\.\.|,|;|:|–|—|-)\s*{_NUMBER}\s*")
_SECONDS, _MILLISECONDS = {"s", "sec", "second", "seconds"}, {"ms", "msec", "milliseconds"}
_TIMES = {"time", "t", "timestamp", "videotime", "audiotime", "onset"}


@dataclasses.dataclass(frozen=True)
class RatingTable:
    """What a rating file holds, in its own units.

    Attributes:
      time: [n], in `unit`.
      lines: [n], the line of each sample in the file, for messages.
      values: {dimension, or "" if the file does not say which: [n]}; NaN where it is not rated.
      unit: "s" or "ms"; "" if the file does not say.
      scales: {as `values`: the scale that the file states}; those it does not state are omitted.
      shift_s: added to the times, in seconds.
      hold_s: as `Rating.hold_s`.
      media: as `Rating.media`.
      notes: as `Rating.notes`.
    """

    time: Sequence[float]
    lines: Sequence[int]
    values: Mapping[str, Sequence[float]]
    unit: str = ""
    scales: Mapping[str, Scale] = dataclasses.field(default_factory=dict)
    shift_s: float = 0.0
    hold_s: float = HOLD_S
    media: str = ""
    notes: tuple[str, ...] = ()


def parse_scale(text: str) -> Scale | None:
    """Returns (1, 9) for "1..9", "1 to 9" or "1-9"; None if it is no scale."""
    found = _SCALE.fullmatch(text.replace("−", "-"))
    if not found:
        return None
    low, high = map(float, found.groups())
    return (low, high) if low < high else None


def split_name(title: str) -> tuple[str, str]:
    """Splits the title of a column: "Arousal (1-9)" -> ("arousal", "1-9"); lower case."""
    found = re.fullmatch(r"([^(\[]*)(?:[(\[](.*)[)\]])?\s*", title.strip())
    name, inside = found.groups() if found else (title, "")
    return name.strip().lower(), (inside or "").strip().lower()


def time_unit_of(title: str) -> str | None:
    """Returns the unit of a column of times, "s" or "ms", "" if unknown; None for other columns."""
    name, inside = split_name(title)
    words = [word for word in re.split(r"[\s_.-]+", name) if word]
    if not words:
        return None
    stated = {*words[1:], inside} if words[0] in _TIMES or words[:2] == ["video", "time"] else None
    if stated is None:
        stated = {words[0]} if len(words) == 1 else None
        if stated is None or not stated & (_SECONDS | _MILLISECONDS):
            return None
    if stated & _MILLISECONDS:
        return "ms"
    return "s" if stated & _SECONDS else ""


def number(path: Path, line: int, what: str, cell: str, *, decimal: str = ".") -> float:
    """Returns the number in a cell, NaN for an unrated one.

    Raises:
      UserError: it is no number, or an infinite one.
    """
    text = cell.strip()
    if text.lower() in UNRATED:
        return math.nan
    try:
        value = float(text.replace(decimal, ".") if decimal != "." else text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise UserError(f"{path}, line {line}: {what} is {cell[:40]!r}; expected a number.")
    return value


def read_columns(path: Path, text: str) -> RatingTable:
    """Reads a table with named columns: a time, and one or two dimensions, in any order.

    Comments before the header, "# scale: 1 to 9", "# hold_s: inf" and "# media: song.wav", state
    what holds for all columns. A title may state a unit or a scale: "time (ms)", "arousal [1-9]".

    Raises:
      UserError: columns are missing or given twice, or a cell is no number.
    """
    lines = text.splitlines()
    comments = {}
    first = 0
    while first < len(lines) and (not lines[first].strip() or lines[first].startswith("#")):
        name, _, value = lines[first].lstrip("# ").partition(":")
        comments[name.strip().lower()] = value.strip()
        first += 1
    if first == len(lines):
        raise UserError(f"{path} holds no rows; expected a header, such as time_s,arousal,valence.")
    delimiter = max(",;\t", key=lines[first].count)
    rows = csv.reader(lines[first:], delimiter=delimiter)
    titles = next(rows)
    times = [i for i, title in enumerate(titles) if time_unit_of(title) is not None]
    kept = {i: split_name(title)[0] for i, title in enumerate(titles)}
    kept = {i: name for i, name in kept.items() if name in (*DIMENSIONS, *VALUE_COLUMNS)}
    if any(name in DIMENSIONS for name in kept.values()):
        kept = {i: name for i, name in kept.items() if name in DIMENSIONS}
    if len(times) > 1 and "videotime" in (names := [titles[i].strip().lower() for i in times]):
        times = [times[names.index("videotime")]]  # PAGAN's Timestamp is that of the day
    if len(times) != 1 or not kept or len(set(kept.values())) < len(kept):
        shown = ", ".join(title.strip()[:30] or "(no title)" for title in titles[:12])
        raise UserError(
            f"{path} has the columns {shown}; expected one column time_s or time_ms, and arousal, "
            "valence or both, or one column value with --dimension."
        )
    scale = parse_scale(comments["scale"]) if "scale" in comments else None
    if "scale" in comments and scale is None:
        raise UserError(f"{path}: {comments['scale'][:40]!r} is no scale; expected LOW to HIGH.")
    named = {i: name if name in DIMENSIONS else "" for i, name in kept.items()}
    scales: dict[str, Scale] = {}
    for i, name in named.items():
        stated = parse_scale(split_name(titles[i])[1]) or scale
        if stated:
            scales[name] = stated
    decimal = "," if delimiter == ";" else "."
    time, places, values = [], [], {name: [] for name in named.values()}
    for cells in rows:
        line = first + rows.line_num
        if not any(cell.strip() for cell in cells):
            continue
        cells = [*cells, *[""] * (len(titles) - len(cells))]
        at = number(path, line, "the time", cells[times[0]], decimal=decimal)
        if math.isnan(at):
            raise UserError(f"{path}, line {line} has no time; expected a number.")
        time.append(at)
        places.append(line)
        for i, name in named.items():
            values[name].append(number(path, line, name or "value", cells[i], decimal=decimal))
    others = [title.strip() for i, title in enumerate(titles) if i not in named and i != times[0]]
    notes = (f"columns not used: {', '.join(others)}",) if others else ()
    held = comments.get("hold_s", f"{HOLD_S}")
    hold = math.inf if held == "inf" else number(path, 1, "hold_s", held)
    return RatingTable(
        time,
        places,
        values,
        unit=time_unit_of(titles[times[0]]) or "",
        scales=scales,
        hold_s=hold,
        media=comments.get("media", ""),
        notes=notes,
    )
