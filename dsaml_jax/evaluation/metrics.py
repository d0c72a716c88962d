"""RMSE, PCC and CCC of curves: per sequence and dimension, then averaged over annotators.

A sequence is one annotator's curve of one song. Moments are population moments over its valid
frames, in float64. With p the prediction and t the target of one dimension,

    RMSE = sqrt(mean (p - t)²)
    PCC  = cov(p, t) / (sd_p sd_t)
    CCC  = 2 cov(p, t) / (var_p + var_t + (mean_p - mean_t)²)        (Lin, Biometrics 1989)

A curve is flat if its standard deviation is at most `FLAT`.

- Flat target: PCC is 0/0, and CCC is 0 however close the prediction is. Neither says anything about
  the prediction, so both are undefined: NaN for the sequence, counted, and excluded from means.
- Flat prediction of a target that varies: CCC is 0 by its formula. PCC is 0/0, and is set to 0, no
  association, by convention: the constant baseline is such a prediction, and methods can be
  compared only over the same sequences.

So whether a value is defined depends on the target alone, never on the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Shaped

METRICS = ("ccc", "pcc", "rmse")

METRIC_NAMES = METRICS + tuple(f"{metric}_{name}" for metric in METRICS for name in DIMENSIONS)
"""All reported metrics: `ccc_arousal` is for one dimension, plain `ccc` the mean of both."""

FLAT = 1e-6
"""Largest standard deviation of a flat curve: above float32 rounding on the scale [-1, 1], and a
thousandth of the smallest movement of a rating slider."""


def sequence_metrics(
    prediction: Float[np.ndarray, "sequences segments 2"],
    target: Float[np.ndarray, "sequences segments 2"],
    valid: Bool[np.ndarray, "sequences segments"],
    name: str = "given",
) -> dict[str, Float[np.ndarray, "sequences 2"]]:
    """Computes the metrics of every sequence and dimension.

    Args:
      prediction: predicted curves.
      target: rated curves.
      valid: True where a frame counts; values in other frames are ignored and may be NaN.
      name: the method, for error messages.

    Returns:
      `ccc`, `pcc`, `rmse` in float64. NaN where undefined: PCC and CCC of a flat target (which
      includes a single valid frame), and all three if no frame is valid.

    Raises:
      UserError: the prediction or the target is not finite in a valid frame.
    """
    valid = np.asarray(valid, bool)
    prediction = _finite(f"{name} predictions", prediction, valid, _FIX_PREDICTIONS)
    target = _finite("ratings", target, valid, "fix or remove these ratings")
    frames = valid.sum(axis=1)[:, None]
    safe_frames = np.maximum(frames, 1)

    def mean(values):
        return np.where(valid[..., None], values, 0.0).sum(axis=1) / safe_frames

    mean_p, mean_t = mean(prediction), mean(target)
    centered_p, centered_t = prediction - mean_p[:, None], target - mean_t[:, None]
    var_p, var_t = mean(centered_p**2), mean(centered_t**2)
    covariance = mean(centered_p * centered_t)

    flat_p, flat_t = np.sqrt(var_p) <= FLAT, np.sqrt(var_t) <= FLAT
    product = np.sqrt(var_p) * np.sqrt(var_t)
    pcc = np.where(flat_p, 0.0, covariance / np.where(flat_p | flat_t, 1.0, product))
    spread = var_p + var_t + (mean_p - mean_t) ** 2
    ccc = 2 * covariance / np.where(flat_t, 1.0, spread)
    rmse = np.sqrt(mean((prediction - target) ** 2))
    return {
        "ccc": np.where(flat_t, np.nan, ccc),
        "pcc": np.where(flat_t, np.nan, np.clip(pcc, -1.0, 1.0)),
        "rmse": np.where(frames > 0, rmse, np.nan),
    }


def undefined_counts(
    per_sequence: Mapping[str, Float[np.ndarray, "sequences 2"]],
) -> dict[str, int]:
    """Counts the sequences without a value, for every name of `METRIC_NAMES`.

    A plain name counts both of its dimensions: `ccc` = `ccc_arousal` + `ccc_valence`.

    Args:
      per_sequence: result of `sequence_metrics`.
    """
    counts = {}
    for metric in METRICS:
        missing = np.isnan(per_sequence[metric]).sum(axis=0)
        counts[metric] = int(missing.sum())
        counts |= {f"{metric}_{name}": int(missing[i]) for i, name in enumerate(DIMENSIONS)}
    return {name: counts[name] for name in METRIC_NAMES}


def annotator_means(
    per_sequence: Mapping[str, Float[np.ndarray, "sequences 2"]],
    annotator_index: Shaped[np.ndarray, " sequences"],
) -> dict[str, Float[np.ndarray, " annotators"]]:
    """Averages the metrics over each annotator's defined sequences.

    Args:
      per_sequence: result of `sequence_metrics`.
      annotator_index: the annotator of each sequence, by any sortable values.

    Returns:
      An array for every name of `METRIC_NAMES`, in the sorted order of the annotators; NaN where an
      annotator has no defined sequence. A plain metric is the mean of the annotator's two
      dimensions, and undefined unless both are defined.
    """
    annotators, index = np.unique(np.asarray(annotator_index), return_inverse=True)
    means = {}
    for metric in METRICS:
        values = per_sequence[metric]
        sums, counts = np.zeros((2, len(annotators), len(DIMENSIONS)))
        np.add.at(sums, index, np.nan_to_num(values, nan=0.0))
        np.add.at(counts, index, ~np.isnan(values))
        by_dimension = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        means[metric] = by_dimension.mean(axis=1)
        means |= {f"{metric}_{name}": by_dimension[:, i] for i, name in enumerate(DIMENSIONS)}
    return {name: means[name] for name in METRIC_NAMES}


def average(
    per_annotator: Mapping[str, Float[np.ndarray, " annotators"]],
) -> dict[str, float | None]:
    """Averages the metrics over the annotators that have a value; None if none has.

    Args:
      per_annotator: result of `annotator_means`.
    """
    return {
        name: None if np.isnan(values).all() else float(np.nanmean(values))
        for name, values in per_annotator.items()
    }


def left_out(per_annotator: Mapping[str, Float[np.ndarray, " annotators"]]) -> dict[str, int]:
    """Counts the annotators that `average` leaves out because no sequence of theirs has a value."""
    return {name: int(np.isnan(values).sum()) for name, values in per_annotator.items()}


_FIX_PREDICTIONS = "lower the learning rates, or resume from an earlier checkpoint"


def _finite(what: str, curves: np.ndarray, valid: np.ndarray, remedy: str) -> np.ndarray:
    """Converts curves to float64 with zeros in invalid frames.

    Raises:
      UserError: a curve is not finite in a valid frame.
    """
    expected = (*valid.shape, len(DIMENSIONS))
    if np.shape(curves) != expected:
        raise ValueError(f"the {what} have shape {np.shape(curves)}, expected {expected}")
    curves = np.where(valid[..., None], np.asarray(curves, np.float64), 0.0)
    broken = np.flatnonzero(~np.isfinite(curves).all(axis=(1, 2)))
    if broken.size:
        raise UserError(
            f"The {what} of {broken.size} of {len(curves)} sequences (the first is number "
            f"{broken[0]}, counted from 0) are NaN or infinite: {remedy}."
        )
    return curves
