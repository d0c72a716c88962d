"""The table of an experiment: every way of predicting, side by side on the same sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.evaluation import metrics
from dsaml_jax.evaluation.bootstrap import Interval, bootstrap_columns

REFERENCE = "adapted"
"""The row from which the others are subtracted, unless another one is named."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What `results.json` says. Undefined numbers are None.

    Attributes:
      rows: {row: {metric: mean over annotators}} for every metric of `metrics.METRIC_NAMES`.
      intervals: {row: {metric: Interval}}, bootstrap intervals of the same means.
      differences: {row: {metric: Interval}}, `reference` minus row, over the annotators that both
        have; for every row but the reference. Better is above zero, but below zero for RMSE.
      undefined: {row: {metric: sequences without a value}}.
      left_out: {row: {metric: annotators without a value}}.
      counts: number of units (`annotators` or `songs`) and `sequences`, before anything undefined
        is left out.
      unit: "annotators", or "songs" where labels are everyone's mean: what means and intervals are
        taken over. Where it is songs, read songs for annotators above.
      reference: the row from which the others are subtracted.
    """

    rows: dict[str, dict[str, float | None]]
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    undefined: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    counts: dict[str, int]
    unit: str
    reference: str

    def to_json(self) -> dict[str, Any]:
        """As dicts, numbers and None, ready for `json.dumps(..., allow_nan=False)`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Results:
        """Inverse of `to_json`."""

        def intervals(table):
            return {
                row: {name: Interval(**ends) for name, ends in values.items()}
                for row, values in table.items()
            }

        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        for name in ("intervals", "differences"):
            fields[name] = intervals(fields[name])
        return cls(**fields)

    def to_markdown(self, order: Sequence[str] = ()) -> str:
        """A table for the console and the README: one line a row, then a legend.

        Args:
          order: rows in the order of lines; rows that it does not name follow, in their own order.
        """
        listed = self._listed(order)
        lines = [["row", "CCC", "PCC", "RMSE"]]
        lines += [
            [row] + [_number(self.rows[row][name]) for name in metrics.METRICS] for row in listed
        ]
        if self.differences:
            lines[0] += [f"{self.reference} − row, CCC", f"{self.reference} − row, RMSE"]
            for line in lines[1:]:
                found = self.differences.get(line[0])
                line += [_interval(found[name]) if found else "-" for name in ("ccc", "rmse")]
        return "\n".join([*_aligned(lines, len(metrics.METRICS)), "", *self._legend(listed)])

    def intervals_to_markdown(self, order: Sequence[str] = ()) -> str:
        """A second table: the means themselves with their intervals, by dimension."""
        pairs = [(metric, name) for metric in metrics.METRICS for name in DIMENSIONS]
        names = [f"{metric}_{name}" for metric, name in pairs]
        lines = [["row", *(f"{metric.upper()}, {name}" for metric, name in pairs)]]
        for row in self._listed(order):
            lines.append([row, *(_interval(self.intervals[row][n], "", False) for n in names)])
        return "\n".join(_aligned(lines))

    def _listed(self, order: Sequence[str]) -> list[str]:
        listed = [row for row in order if row in self.rows]
        return listed + [row for row in self.rows if row not in listed]

    def _legend(self, listed: Sequence[str]) -> list[str]:
        legend = [
            f"Means over {self.counts[self.unit]} {self.unit} ({self.counts['sequences']} "
            "sequences) and both dimensions. CCC and PCC: higher is better; RMSE: lower is better."
        ]
        if self.differences:
            legend.append(
                f"Differences: 95 % bootstrap intervals over {self.unit}, * where they exclude 0; "
                f"{self.reference} is better where CCC is above 0 and RMSE below 0."
            )
        skipped: dict[str, list[str]] = {}
        for row in listed:
            parts = [
                f"{metric.upper()} {self.undefined[row][metric]} curves, "
                f"{self.left_out[row][metric]} {self.unit}"
                for metric in metrics.METRICS
                if self.undefined[row][metric]
            ]
            if parts:
                skipped.setdefault("; ".join(parts), []).append(row)
        for text, rows in skipped.items():
            who = "all rows" if len(rows) == len(listed) else ", ".join(rows)
            legend.append(
                f"Left out because undefined (the rating is flat or empty), {who}: {text}."
            )
        return legend


def score_methods(
    predictions: Mapping[str, np.ndarray],
    target: np.ndarray,
    valid: np.ndarray,
    annotator_index: np.ndarray,
    seed: int,
    resamples: int = 10_000,
    unit: str = "annotators",
    reference: str = REFERENCE,
) -> Results:
    """Scores every row on the same sequences and compares `reference` with each of the others.

    Args:
      predictions: {row: [N, L, 2]}; differences are given where the reference is among them.
      target: [N, L, 2], the ratings.
      valid: [N, L] bool.
      annotator_index: [N], who rated; or, where `unit` is songs, what was rated.
      seed: of the bootstrap; every row and metric sees the same draws of annotators.
      resamples: of the bootstrap.
      unit: "annotators" or "songs", what the index counts.
      reference: the row that the others are compared with.

    Raises:
      UserError: a prediction or rating is not finite where valid; it names the row.
    """
    per_sequence = {
        row: metrics.sequence_metrics(curves, target, valid, name=row)
        for row, curves in predictions.items()
    }
    per_annotator = {
        row: metrics.annotator_means(values, annotator_index)
        for row, values in per_sequence.items()
    }
    others = [row for row in predictions if row != reference] if reference in predictions else []
    columns = list(per_annotator.values())
    columns += [_difference(per_annotator[reference], per_annotator[row]) for row in others]
    names = metrics.METRIC_NAMES
    stacked = [[values[name] for name in names] for values in columns]
    people = len(np.unique(annotator_index))
    flat = np.reshape(stacked, (len(columns) * len(names), people)).T
    found = bootstrap_columns(flat, seed, resamples)
    tables = [
        dict(zip(names, found[i : i + len(names)], strict=True))
        for i in range(0, len(found), len(names))
    ]
    return Results(
        rows={row: metrics.average(values) for row, values in per_annotator.items()},
        intervals=dict(zip(per_annotator, tables, strict=False)),
        differences=dict(zip(others, tables[len(per_annotator) :], strict=True)),
        undefined={row: metrics.undefined_counts(v) for row, v in per_sequence.items()},
        left_out={row: metrics.left_out(values) for row, values in per_annotator.items()},
        counts={unit: people, "sequences": len(target)},
        unit=unit,
        reference=reference,
    )


def _difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a[name] - b[name] for name in a}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:z.3f}"


def _interval(interval: Interval, sign: str = "+", star: bool = True) -> str:
    if interval.mean is None:
        return "-"
    form = f"{sign}z.3f"
    ends = "-" if interval.low is None else f"{interval.low:{form}}, {interval.high:{form}}"
    mark = " *" if star and interval.excludes_zero() else ""
    return f"{interval.mean:{form}} [{ends}]{mark}"


def _aligned(lines: Sequence[Sequence[str]], numbers: int = 0) -> list[str]:
    """A markdown table whose columns are also aligned as plain text.

    The `numbers` columns after the first are set to the right.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    numeric = [0 < i <= numbers for i in range(len(widths))]

    def row(cells):
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
