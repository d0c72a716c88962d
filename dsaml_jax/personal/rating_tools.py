"""Files of the field's rating tools, as the tools write them.

CARMA, DARMA (Girard)       one and two dimensions; sources: the programs' own export code
                            (github.com/jmgirard/CARMA, /DARMA: fig_collect.m, fig_review.m)
PAGAN (Melhart et al. 2019) one dimension (github.com/davidmelhart/PAGAN: annotation.js,
                            fetch_log.php)
jsPsych                     the extension mouse-tracking over one target element, as CSV or JSON
                            (jspsych.org/latest/extensions/mouse-tracking)
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.errors import UserError
from dsaml_jax.personal.rating import Scale
from dsaml_jax.personal.rating_table import RatingTable, number, read_columns

_FIRST = "Time of Rating"
_RULE = "%%%%%%"
_AXES = {"x": "valence", "y": "arousal"}
"""DARMA's own names of the axes, which are valence and arousal in its affective setting."""


def is_carma(text: str) -> bool:
    """Returns whether a file is CARMA's or DARMA's."""
    return text.startswith(_FIRST)


def read_carma(path: Path, text: str) -> RatingTable:
    """Reads a file of CARMA (one dimension) or DARMA (two).

    Lines of metadata, the scale among them, are followed by the titles, a line of percent signs,
    and one line for each interval. Its time is the END of the interval over which the tool averaged
    the ratings; an interval without any is NaN.

    Raises:
      UserError: the file ends early, or an axis of DARMA is neither arousal nor valence.
    """
    rows = list(csv.reader(io.StringIO(text)))
    rule = next((i for i, row in enumerate(rows) if row and row[0] == _RULE), 0)
    if rule < 2 or len(rows) <= rule + 1:
        raise UserError(f"{path} begins as a file of CARMA or DARMA, but holds no ratings.")
    about = {row[0]: row[1].strip() for row in rows[: rule - 1] if len(row) > 1}
    titles = [title.strip().lower() for title in rows[rule - 1]]
    if "Magnitude" in about:
        named = [(i, _AXES.get(title, title)) for i, title in enumerate(titles[1:3], 1)]
        if sorted(name for _, name in named) != sorted(DIMENSIONS):
            raise UserError(
                f"{path}: DARMA's axes are {rows[rule - 1][1]!r} and {rows[rule - 1][2]!r}; "
                "expected Valence and Arousal, or X (valence) and Y (arousal): correct the line "
                f"above {_RULE}."
            )
        magnitude = number(path, rule, "Magnitude", about["Magnitude"])
        scale: Scale = (-magnitude, magnitude)
    else:
        named = [(1, "")]
        low, high = (
            number(path, rule, title, about.get(title, ""))
            for title in ("Minimum Value", "Maximum Value")
        )
        scale = (low, high)
    body = [(i, row) for i, row in enumerate(rows[rule + 1 :], rule + 2) if any(row)]
    time = [number(path, i, "Second", row[0]) for i, row in body]
    values = {
        name: [
            number(path, i, name or "Rating", row[at] if at < len(row) else "") for i, row in body
        ]
        for at, name in named
    }
    valid_scale = math.isfinite(scale[0]) and scale[0] < scale[1]
    return _ending(
        RatingTable(
            time,
            [i for i, _ in body],
            values,
            unit="s",
            scales={name: scale for name in values} if valid_scale else {},
            media=about.get("Multimedia File", ""),
        )
    )


def read_old_carma(path: Path, text: str) -> RatingTable:
    """Reads a file of early versions of CARMA, which repeat the metadata in every line."""
    table = read_columns(path, text)
    first = next(csv.DictReader(io.StringIO(text)))
    scale = tuple(number(path, 2, name, first[name]) for name in _OLD_SCALE)
    known = {"": scale} if scale[0] < scale[1] else {}
    media = first["Filename"].replace("\\", "/").rpartition("/")[2]
    return _ending(dataclasses.replace(table, scales=known, unit="s", media=media, notes=()))


_OLD_SCALE = ("Minimum Value", "Maximum Value")


def is_old_carma(text: str) -> bool:
    """Returns whether a file is one of early versions of CARMA."""
    titles = text.partition("\n")[0].strip().split(",")
    return {"Filename", "Second", "Rating", *_OLD_SCALE} <= set(titles)


def _ending(table: RatingTable) -> RatingTable:
    """Moves times from the ends of intervals to their starts; each value holds its interval."""
    steps = np.diff(table.time)
    interval = float(np.median(steps)) if len(steps) else (table.time[0] if table.time else 1.0)
    return dataclasses.replace(table, shift_s=-interval, hold_s=interval * (1 + 1e-6))


def is_pagan(text: str) -> bool:
    """Returns whether a file is PAGAN's, of its test application or of a project."""
    titles = [title.strip() for title in text.partition("\n")[0].split(",")]
    return {"Timestamp", "VideoTime", "Value"} <= set(titles)


def read_pagan(path: Path, text: str) -> RatingTable:
    """Reads a log of PAGAN: VideoTime in milliseconds, and a Value that holds until the next line.

    The file states neither the dimension nor the scale: GTrace is -100 to 100, BTrace -1 to 1, and
    RankTrace has no bounds. The line by which PAGAN marks the end, a 0 at the time of the line
    before, is left out.

    Raises:
      UserError: it holds several annotations.
    """
    # Titles of videos are written without quotes and may contain commas.
    lines = text.splitlines()
    titles = [title.strip() for title in lines[0].split(",")]
    rows = [(i, line.split(",")) for i, line in enumerate(lines[1:], 2) if line.strip()]
    own = len(titles) - (titles.index("OriginalName") + 1 if "OriginalName" in titles else 0)
    sessions = {tuple(row[-own:-3]) for _, row in rows}
    if len(sessions) > 1:
        raise UserError(
            f"{path} holds {len(sessions)} annotations of PAGAN; keep the lines of one "
            "participant, session and video."
        )
    time = [number(path, i, "VideoTime", row[-2]) for i, row in rows]
    value = [number(path, i, "Value", row[-1]) for i, row in rows]
    notes = ()
    if len(time) > 1 and time[-1] == time[-2] and value[-1] == 0:
        time, value, rows = time[:-1], value[:-1], rows[:-1]
        notes = ("the last line, which marks the end of PAGAN's log",)
    media = ",".join(rows[0][1][: len(rows[0][1]) - own]) if rows else ""
    return RatingTable(
        time,
        [i for i, _ in rows],
        {"": value},
        unit="ms",
        hold_s=math.inf,
        media=media.rpartition(" - ")[0] or media,
        notes=notes,
    )


def is_jspsych(text: str) -> bool:
    """Returns whether a file is jsPsych's, with data of its extension mouse-tracking."""
    return "mouse_tracking_data" in text and (
        text.lstrip()[:1] == "[" or "mouse_tracking_data" in text.partition("\n")[0]
    )


def read_jspsych(path: Path, text: str) -> RatingTable:
    """Reads a trial in which jsPsych tracked the mouse over one element.

    The element is the valence-arousal plane: valence grows from its left edge to its right one,
    arousal from bottom to top. Positions outside count as on the edge. Times are milliseconds since
    the trial began, when the song must begin too. A position holds until the mouse moves.

    Raises:
      UserError: there is no such trial, or several; the element is not recorded.
    """
    try:
        trials = json.loads(text) if text.lstrip()[:1] == "[" else _trials(text)
        tracked = [trial for trial in trials if trial.get("mouse_tracking_data")]
        points = [_decoded(trial["mouse_tracking_data"]) for trial in tracked]
        boxes = [_decoded(trial.get("mouse_tracking_targets") or {}) for trial in tracked]
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is no data of jsPsych ({error}); write it again.") from error
    if len(tracked) != 1:
        raise UserError(
            f"{path} has {len(tracked)} trials with mouse_tracking_data; expected one: keep the "
            "trial in which this song was rated."
        )
    if len(boxes[0]) != 1:
        raise UserError(
            f"{path}: mouse_tracking_targets names {len(boxes[0])} elements; expected one, the "
            "valence-arousal plane: give the extension targets: ['#plane']."
        )
    (box,) = boxes[0].values()
    try:
        left, top, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
        samples = [(float(p["t"]), float(p["x"]), float(p["y"])) for p in points[0]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: a position or the element lacks x, y, t, width or height ({error})."
        ) from error
    if min(width, height) <= 0:
        raise UserError(f"{path}: the tracked element has no size ({width:g} x {height:g}).")
    time, x, y = np.array(samples).reshape(-1, 3).T
    # Two events may share a millisecond: the later position holds.
    last = np.append(np.diff(time) != 0, True)
    time, x, y = time[last], x[last], y[last]
    across, up = np.clip((x - left) / width, 0, 1), np.clip(1 - (y - top) / height, 0, 1)
    outside = int(((x < left) | (x > left + width) | (y < top) | (y > top + height)).sum())
    notes = (f"{outside} positions outside the plane count as on its edge",) if outside else ()
    stimulus = tracked[0].get("stimulus")
    return RatingTable(
        time.tolist(),
        [1 + i for i in range(len(time))],
        {"valence": across.tolist(), "arousal": up.tolist()},
        unit="ms",
        scales={name: (0.0, 1.0) for name in DIMENSIONS},
        hold_s=math.inf,
        media=stimulus.rpartition("/")[2]
        if isinstance(stimulus, str) and len(stimulus) < 300
        else "",
        notes=notes,
    )


def _trials(text: str) -> list[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a trial is one cell
    return list(csv.DictReader(io.StringIO(text)))


def _decoded(value: Any) -> Any:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, list | Mapping):
        raise ValueError("mouse_tracking_data is no list")
    return found
