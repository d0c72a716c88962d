"""The scores of all methods on the same sequences, and their differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsaml_jax.evaluation import metrics
from dsaml_jax.evaluation.bootstrap import Interval, bootstrap_columns
from dsaml_jax.evaluation.decoding import CueDecoding
from dsaml_jax.evaluation.headroom import Headroom, headroom
from dsaml_jax.evaluation.songs_curve import SongsCurve

REFERENCE = "adapted"
"""The default method from which the others are subtracted."""


@dataclasses.dataclass(frozen=True)
class Results:
    """The content of `results.json`. Undefined numbers are None.

    A row is a method. If the unit is songs, read songs for annotators below.

    Attributes:
      rows: {row: {metric: mean over annotators}} for every metric of `metrics.METRIC_NAMES`.
      intervals: {row: {metric: Interval}}, bootstrap intervals of the same means.
      differences: {row: {metric: Interval}}, `reference` minus row over the annotators that have
        both, for every row but the reference. Above zero the reference is better; for RMSE, below.
      undefined: {row: {metric: number of sequences without a value}}.
      left_out: {row: {metric: number of annotators without a value}}.
      counts: number of units (`annotators` or `songs`) and of `sequences`, including those without
        a value.
      unit: what means and intervals are taken over: "annotators" for personal labels, "songs" for
        consensus labels.
      reference: the row from which the others are subtracted.
      headroom: the share of the ideal gain that was reached; None without ideal rows.
      songs_curve: the gain by number of support songs; None where it was not asked for.
      cue_decoding: what features tell of a simulated song's cues; None for real songs.
    """

    rows: dict[str, dict[str, float | None]]
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    undefined: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    counts: dict[str, int]
    unit: str
    reference: str
    headroom: Headroom | None = None
    songs_curve: SongsCurve | None = None
    cue_decoding: CueDecoding | None = None

    def to_json(self) -> dict[str, Any]:
        """Converts to dicts, numbers and None, ready for `json.dumps(..., allow_nan=False)`."""
        return dataclasses.asdict(self)


def score_methods(
    predictions: Mapping[str, np.ndarray],
    target: np.ndarray,
    valid: np.ndarray,
    annotator_index: np.ndarray,
    seed: int,
    resamples: int = 10_000,
    unit: str = "annotators",
    reference: str = REFERENCE,
    rmse_predictions: Mapping[str, np.ndarray] | None = None,
    baseline: str = "population",
) -> Results:
    """Scores every method on the same sequences and compares `reference` with each of the others.

    Args:
      predictions: {method: [N, L, 2]}; there are no differences unless the reference is among them.
      target: [N, L, 2], the ratings.
      valid: [N, L] bool.
      annotator_index: [N], the annotator, or the song if the unit is songs.
      seed: of the bootstrap; all methods and metrics share the same draws.
      resamples: number of bootstrap draws.
      unit: "annotators" or "songs", what the index counts.
      reference: the method that the others are compared with.
      rmse_predictions: {method: [N, L, 2]}, the curves whose RMSE counts, for methods that predict
        another curve for CCC.
      baseline: the method from which the share of the headroom is measured.

    Raises:
      UserError: a prediction or rating is not finite where valid; the message names the method.
    """
    per_sequence = {
        method: metrics.sequence_metrics(curves, target, valid, name=method)
        for method, curves in predictions.items()
    }
    for method, curves in (rmse_predictions or {}).items():
        scores = metrics.sequence_metrics(curves, target, valid, name=method)
        per_sequence[method]["rmse"] = scores["rmse"]
    per_annotator = {
        method: metrics.annotator_means(values, annotator_index)
        for method, values in per_sequence.items()
    }
    others = [name for name in predictions if name != reference] if reference in predictions else []
    columns = list(per_annotator.values())
    columns += [_difference(per_annotator[reference], per_annotator[name]) for name in others]
    names = metrics.METRIC_NAMES
    stacked = [[values[name] for name in names] for values in columns]
    units = len(np.unique(annotator_index))
    flat = np.reshape(stacked, (len(columns) * len(names), units)).T
    intervals = bootstrap_columns(flat, seed, resamples)
    tables = [
        dict(zip(names, intervals[i : i + len(names)], strict=True))
        for i in range(0, len(intervals), len(names))
    ]
    return Results(
        rows={method: metrics.average(values) for method, values in per_annotator.items()},
        intervals=dict(zip(per_annotator, tables, strict=False)),
        differences=dict(zip(others, tables[len(per_annotator) :], strict=True)),
        undefined={method: metrics.undefined_counts(v) for method, v in per_sequence.items()},
        left_out={method: metrics.left_out(values) for method, values in per_annotator.items()},
        counts={unit: units, "sequences": len(target)},
        unit=unit,
        reference=reference,
        headroom=headroom(
            {method: values["ccc"] for method, values in per_annotator.items()},
            baseline,
            seed,
            resamples,
        ),
    )


def _difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a[name] - b[name] for name in a}
