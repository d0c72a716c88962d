"""Reading of a rating from a file: a table with named columns, or what a rating tool writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.errors import UserError, one_of
from dsaml_jax.personal import rating_tools as tools
from dsaml_jax.personal.rating import OWN_SCALE, Rating, Scale
from dsaml_jax.personal.rating_table import RatingTable, parse_scale, read_columns

TIME_UNITS = {"s": 1.0, "ms": 1e-3}

_LARGEST = 2**28  # bytes
_FORMATS = (
    (tools.is_carma, tools.read_carma),
    (tools.is_old_carma, tools.read_old_carma),
    (tools.is_pagan, tools.read_pagan),
    (tools.is_jspsych, tools.read_jspsych),
)


def read_rating(
    path: str | Path,
    scale: Scale | str | None = None,
    time_unit: str | None = None,
    dimension: str | None = None,
) -> Rating:
    """Reads a rating from a CSV, or from a file of CARMA, DARMA, PAGAN or jsPsych.

    Unit and scale are those that the file states, or the arguments; they are never guessed.

    Args:
      path: the file.
      scale: (low, high) of the rating scale, or a text such as "1..9".
      time_unit: of the times, "s" or "ms".
      dimension: what a file with one column of values rates, "arousal" or "valence".

    Raises:
      UserError: the file cannot be read; it does not state unit, scale or dimension, or states
        another than the argument; times do not increase; a value is not on the scale; nothing is
        rated, or the rating is constant. File and line are named.
    """
    path = Path(path)
    if time_unit:
        one_of("--time_unit", time_unit, tuple(TIME_UNITS))
    if dimension:
        one_of("--dimension", dimension, DIMENSIONS)
    if isinstance(scale, str):
        parsed = parse_scale(scale)
        if parsed is None:
            raise UserError(f"--scale is {scale!r}; expected LOW..HIGH, such as 1..9.")
        scale = parsed
    text = _text(path)
    reader = next((reader for matches, reader in _FORMATS if matches(text)), read_columns)
    return _rating(path, reader(path, text), scale, time_unit, dimension)


def _text(path: Path) -> str:
    """Returns the text of a file without a byte order mark."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path} is larger than {_LARGEST >> 20} MiB; expected a rating.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if b"\0" in content[:4] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is not text; expected a CSV, such as an export to CSV.")
    if content[:4] == b"PK\3\4" or content[:4] == b"\xd0\xcf\x11\xe0":
        raise UserError(f"{path} is a spreadsheet; export it as CSV.")
    if not content.strip():
        raise UserError(f"{path} is empty; expected a rating.")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:  # names of media files, as Windows programs write them
        return content.decode("cp1252", "replace")


def _rating(
    path: Path, table: RatingTable, scale: Scale | None, unit: str | None, dimension: str | None
) -> Rating:
    """Converts units and scales; checks what the file says against the arguments."""
    if table.unit and unit and table.unit != unit:
        raise UserError(f"{path} states times in {table.unit}, but --time_unit is {unit}.")
    unit = table.unit or unit
    if not unit:
        raise UserError(
            f"{path} does not say in which unit its times are; state it with --time_unit=s or "
            "--time_unit=ms, or name the column time_s or time_ms."
        )
    time = np.asarray(table.time, np.float64)
    _check_times(path, time, table.lines, unit)
    columns = {}
    for name, values in table.values.items():
        if name and dimension and dimension not in table.values:
            raise UserError(f"{path} rates {name}, but --dimension is {dimension}.")
        rated = name or dimension
        if not rated:
            raise UserError(
                f"{path} does not say what it rates; state it with --dimension=arousal or "
                "--dimension=valence."
            )
        stated = table.scales.get(name)
        if stated and scale and stated != scale:
            raise UserError(
                f"{path} states the scale {stated[0]:g} to {stated[1]:g}, but --scale is "
                f"{scale[0]:g}..{scale[1]:g}."
            )
        array = np.asarray(values, np.float64)
        columns[rated] = _scaled(path, rated, array, table.lines, stated or scale)
    if all(np.isnan(column).all() for column in columns.values()):
        raise UserError(f"{path} rates nothing: all {len(time)} values are empty or NaN.")
    constant = [name for name, column in columns.items() if np.nanmax(column) == np.nanmin(column)]
    if len(constant) == len(columns):
        levels = " and ".join(f"{name} {np.nanmin(columns[name]):g}" for name in constant)
        raise UserError(
            f"{path} is constant ({levels} throughout, on -1 to 1): nothing can be learned from it."
        )
    seconds = np.round(time * TIME_UNITS[unit] + table.shift_s, 9)
    if seconds[0] < 0:
        raise UserError(f"{path}, line {table.lines[0]}: the first time is before the song begins.")
    missing = {name: int(np.isnan(column).sum()) for name, column in columns.items()}
    notes = [
        *table.notes,
        *(f"{n} of {len(time)} samples have no {name}" for name, n in missing.items() if n),
        *(f"{name} is constant: only its level tells anything" for name in constant),
    ]
    nothing = np.full(len(time), np.nan, np.float32)
    return Rating(
        seconds,
        **{name: columns.get(name, nothing).astype(np.float32) for name in DIMENSIONS},
        hold_s=table.hold_s,
        source=str(path),
        media=table.media,
        notes=tuple(notes),
    )


def _check_times(path: Path, time: np.ndarray, lines, unit: str) -> None:
    if not len(time):
        raise UserError(f"{path} holds no ratings; expected one line for each sample.")
    steps = np.diff(time)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        what = "the same as" if steps[at] == 0 else "before"
        remedy = "keep one of them" if steps[at] == 0 else "sort the lines by time"
        raise UserError(
            f"{path}, line {lines[at + 1]}: the time {time[at + 1]:g} {unit} is {what} that of the "
            f"line before, {time[at]:g} {unit}; {remedy}."
        )


def _scaled(path: Path, name: str, values: np.ndarray, lines, scale: Scale | None) -> np.ndarray:
    """Maps values from their scale to -1 to 1; NaN stays.

    Raises:
      UserError: the scale is unknown, or a value is not on it.
    """
    if np.isnan(values).all():
        return values
    if scale is None:
        raise UserError(
            f"{path} does not say on which scale it rates ({name} goes from {np.nanmin(values):g} "
            f"to {np.nanmax(values):g}); state it, such as with --scale=-1..1, --scale=0..1, "
            "--scale=1..9 or --scale=-100..100."
        )
    low, high = scale
    slack = 1e-6 * (high - low)
    outside = (values < low - slack) | (values > high + slack)
    if outside.any():
        at = int(np.argmax(outside))
        raise UserError(
            f"{path}, line {lines[at]}: {name} is {values[at]:g}, outside the scale {low:g} to "
            f"{high:g} ({int(outside.sum())} of {len(values)} values are); correct it, or state "
            "another --scale."
        )
    if scale == OWN_SCALE:
        return np.clip(values, low, high)
    return np.clip(2 * (values - low) / (high - low) - 1, -1, 1)
