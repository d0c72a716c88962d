"""Figures of training: learning curves, and the loss along the inner loop."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from dsaml_jax.evaluation.metrics import METRICS
from dsaml_jax.reports.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    YELLOW,
    new_figure,
    save,
)

_METHOD_COLORS = {
    "constant": GRAY,
    "population": SKY,
    "shifted": PURPLE,
    "wrong_listener": GREEN,
    "adapted": ORANGE,
    "oracle": BLACK,
}
_OTHER_COLORS = (BLUE, YELLOW)


def learning_curves(path: str | os.PathLike[str], history: Sequence[Mapping[str, Any]]) -> None:
    """Draws training loss, training score, and the validation CCC of every method by meta-step.

    Args:
      path: the PNG to write.
      history: lines of `metrics.jsonl`, all with `step`; lines of training have `train/loss` and
        `train/score`, lines of validation have `validation/METHOD/ccc`. Other keys are ignored, and
        so are missing values and nulls.
    """
    figure = new_figure(height=3.6)
    loss, score, validation = figure.subplots(1, 3)
    panels = ((loss, "loss", BLUE, "lower is better"), (score, "score", GREEN, "higher is better"))
    for axis, name, color, better in panels:
        steps, values = _series(history, f"train/{name}")
        axis.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
        axis.plot(steps, smooth(values), color=color, linewidth=1.8)
        axis.set_title(f"training {name} ({better})", fontsize=10)
    methods = {key.split("/")[1]: None for line in history for key in line if _is_ccc(key)}
    others = itertools.cycle(_OTHER_COLORS)
    for method in methods:
        steps, values = _series(history, f"validation/{method}/ccc")
        validation.plot(
            steps,
            values,
            color=_METHOD_COLORS[method] if method in _METHOD_COLORS else next(others),
            marker="o" if len(steps) < 40 else None,
            markersize=3,
            linewidth=1.5,
            label=method.replace("_", " "),
        )
    validation.set_title("validation CCC (higher is better)", fontsize=10)
    if methods:
        figure.legend(loc="outside lower right", ncols=len(methods), fontsize=9, frameon=False)
    for axis in (loss, score, validation):
        axis.set_xlabel("meta-step")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    save(figure, path)


def inner_loop_figure(
    path: str | os.PathLike[str], support: np.ndarray, query: np.ndarray | None = None
) -> None:
    """Draws the loss along the inner loop: the median over tasks, and the interquartile band.

    Args:
      path: the PNG to write.
      support: [tasks, K + 1], the loss on the support song before each inner step and after the
        last.
      query: [tasks, K + 1], the loss on the query songs at the same weights; None if not measured.
    """
    figure = new_figure(height=3.8)
    axis = figure.subplots()
    drawn = [(support, "support song (adapted on)", BLUE)]
    if query is not None:
        drawn.append((query, "query songs (not seen)", ORANGE))
    for losses, label, color in drawn:
        low, median, high = np.nanquantile(
            np.asarray(losses, np.float64), [0.25, 0.5, 0.75], axis=0
        )
        steps = np.arange(len(median))
        axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(steps, median, color=color, linewidth=2, marker="o", markersize=3, label=label)
    axis.set_xlabel("inner step")
    axis.set_ylabel("loss")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(
        f"Adapting to a listener: median of {len(support)} tasks, band from 25 % to 75 %",
        fontsize=10,
    )
    axis.legend(frameon=False)
    save(figure, path)


def _is_ccc(key: str) -> bool:
    """Whether a key is the validation CCC of a method."""
    parts = key.split("/")
    return len(parts) == 3 and parts[0] == "validation" and parts[2] == METRICS[0]


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and values of the lines that have a key."""
    points = [(line["step"], line[key]) for line in history if line.get(key) is not None]
    steps, values = np.reshape(np.asarray(points, np.float64), (-1, 2)).T
    return steps, values


def smooth(values: np.ndarray) -> np.ndarray:
    """Averages over a moving window of a tenth of the run, which is cut off at both ends."""
    if len(values) == 0:
        return values
    kernel = np.ones(2 * (len(values) // 20) + 1)
    present = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / present
