"""Markdown tables of results."""

from __future__ import annotations

from collections.abc import Sequence

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.evaluation import metrics
from dsaml_jax.evaluation.bootstrap import Interval
from dsaml_jax.evaluation.results import Results

MIB = 2**20


def results_table(results: Results, order: Sequence[str] = ()) -> str:
    """Formats means and differences, one line per row, followed by a legend.

    Args:
      results: of one test.
      order: the order of the rows; rows that it does not name follow in their own order.
    """
    rows = _ordered(results, order)
    lines = [["row", "CCC", "PCC", "RMSE"]]
    lines += [
        [row] + [_number(results.rows[row][name]) for name in metrics.METRICS] for row in rows
    ]
    if results.differences:
        reference = results.reference
        lines[0] += [f"{reference} − row, CCC", f"{reference} − row, RMSE"]
        for line in lines[1:]:
            difference = results.differences.get(line[0])
            line += [interval_text(difference[n]) if difference else "-" for n in ("ccc", "rmse")]
    return "\n".join([*aligned(lines, len(metrics.METRICS)), "", *_legend(results, rows)])


def intervals_table(results: Results, order: Sequence[str] = ()) -> str:
    """Formats the means with their intervals, by dimension.

    Args:
      results: of one test.
      order: the order of the rows; rows that it does not name follow in their own order.
    """
    pairs = [(metric, name) for metric in metrics.METRICS for name in DIMENSIONS]
    names = [f"{metric}_{name}" for metric, name in pairs]
    lines = [["row", *(f"{metric.upper()}, {name}" for metric, name in pairs)]]
    for row in _ordered(results, order):
        lines.append([row, *(interval_text(results.intervals[row][n], "", False) for n in names)])
    return "\n".join(aligned(lines))


def _ordered(results: Results, order: Sequence[str]) -> list[str]:
    named = [row for row in order if row in results.rows]
    return named + [row for row in results.rows if row not in named]


def _legend(results: Results, rows: Sequence[str]) -> list[str]:
    legend = [
        f"Means over {results.counts[results.unit]} {results.unit} "
        f"({results.counts['sequences']} sequences) and both dimensions. CCC and PCC: higher is "
        "better; RMSE: lower is better."
    ]
    if results.differences:
        legend.append(
            f"Differences: 95 % bootstrap intervals over {results.unit}, * where they exclude 0; "
            f"{results.reference} is better where CCC is above 0 and RMSE below 0."
        )
    if any(row.startswith("ideal_") for row in rows):
        legend.append(
            "Ideal rows know the simulator and the true cues, but no more ratings than the other "
            "rows: CCC and PCC of the curve with the best expected CCC, RMSE of the mean curve."
        )
    rows_left_out: dict[str, list[str]] = {}
    for row in rows:
        parts = [
            f"{metric.upper()} {results.undefined[row][metric]} curves, "
            f"{results.left_out[row][metric]} {results.unit}"
            for metric in metrics.METRICS
            if results.undefined[row][metric]
        ]
        if parts:
            rows_left_out.setdefault("; ".join(parts), []).append(row)
    for text, names in rows_left_out.items():
        which = "all rows" if len(names) == len(rows) else ", ".join(names)
        legend.append(f"Left out because undefined (the rating is flat or empty), {which}: {text}.")
    return legend


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:z.3f}"


def interval_text(interval: Interval, sign: str = "+", star: bool = True) -> str:
    """Formats a mean with its interval.

    Args:
      interval: the interval.
      sign: "+" to write the sign of positive numbers, too; "" not to.
      star: whether to mark intervals that exclude 0.
    """
    if interval.mean is None:
        return "-"
    form = f"{sign}z.3f"
    ends = "-" if interval.low is None else f"{interval.low:{form}}, {interval.high:{form}}"
    mark = " *" if star and interval.excludes_zero() else ""
    return f"{interval.mean:{form}} [{ends}]{mark}"


def aligned(lines: Sequence[Sequence[str]], numbers: int = 0) -> list[str]:
    """Formats a Markdown table whose columns also line up as plain text.

    Args:
      lines: cells, the header first.
      numbers: how many columns after the first are right-aligned.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    numeric = [0 < i <= numbers for i in range(len(widths))]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    ]
    return [row(lines[0]), row(rule), *(row(line) for line in lines[1:])]
