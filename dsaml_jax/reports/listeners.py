"""Figure of listeners: their ratings over time, and what was predicted."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dsaml_jax.datasets.schema import DIMENSIONS, RATING_HZ
from dsaml_jax.evaluation.metrics import sequence_metrics
from dsaml_jax.reports.style import BLACK, GREEN, ORANGE, SKY, new_figure, save


@dataclasses.dataclass(frozen=True)
class ListenerCurves:
    """One listener's rating of one song, and predictions of it.

    Attributes:
      listener_id, song_id: names for the title.
      rating: [L, 2], (arousal, valence).
      population: [L, 2], the prediction of the population model.
      adapted: [L, 2], the prediction adapted to the listener; None without adaptation.
      control: [L, 2], the prediction adapted to another listener; None to omit it.
      valid: [L] bool, True where the segment is rated; None if all are.
    """

    listener_id: str
    song_id: str
    rating: np.ndarray
    population: np.ndarray
    adapted: np.ndarray | None = None
    control: np.ndarray | None = None
    valid: np.ndarray | None = None


def listener_figure(path: str | os.PathLike[str], listeners: Sequence[ListenerCurves]) -> None:
    """Draws rating, population curve and adapted curve over time, one column per listener.

    Args:
      path: the PNG to write.
      listeners: two to four are easiest to read.
    """
    figure = new_figure(height=5.2)
    axes = figure.subplots(
        len(DIMENSIONS), len(listeners), sharex="col", sharey=True, squeeze=False
    )
    for column, listener in enumerate(listeners):
        axes[0, column].set_title(_listener_title(listener), fontsize=9)
        for row in range(len(DIMENSIONS)):
            _draw_listener(axes[row, column], listener, row)
        axes[-1, column].set_xlabel("time since the first rating (s)")
    for row, name in enumerate(DIMENSIONS):
        axes[row, 0].set_ylabel(f"{name} (−1 to 1)")
    lines = {
        label: line
        for axis in axes[0]
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=len(lines),
        frameon=False,
    )
    save(figure, path)


def _draw_listener(axis: Axes, listener: ListenerCurves, dimension: int) -> None:
    seconds = np.arange(len(listener.rating)) / RATING_HZ
    valid = _valid(listener)

    def draw(curves: np.ndarray, label: str, **style: Any) -> None:
        axis.plot(seconds, np.where(valid, curves[:, dimension], np.nan), label=label, **style)

    draw(listener.rating, "rating", color=BLACK, linewidth=2.2)
    draw(listener.population, "population model", color=SKY, linewidth=1.8, linestyle=(0, (5, 2)))
    if listener.control is not None:
        label = "adapted to another listener"
        draw(listener.control, label, color=GREEN, linewidth=1, linestyle=(0, (1, 1)))
    if listener.adapted is not None:
        draw(listener.adapted, "adapted to this listener", color=ORANGE, linewidth=2)
    axis.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)


def _listener_title(listener: ListenerCurves) -> str:
    text = f"CCC {_ccc(listener, listener.population, 'population')}"
    if listener.adapted is not None:
        text += f", adapted {_ccc(listener, listener.adapted, 'adapted')}"
    return f"{_short(listener.listener_id)}\n{_short(listener.song_id)}\n{text}"


def _ccc(listener: ListenerCurves, curves: np.ndarray, name: str) -> str:
    """Formats the mean CCC of both dimensions."""
    values = sequence_metrics(curves[None], listener.rating[None], _valid(listener)[None], name)
    ccc = values["ccc"].mean()
    return "undefined" if math.isnan(ccc) else f"{ccc:z.2f}"


def _short(name: str, longest: int = 24) -> str:
    """Cuts a long id to its end, where ids differ, so that neighboring titles do not overlap."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _valid(listener: ListenerCurves) -> np.ndarray:
    return np.ones(len(listener.rating), bool) if listener.valid is None else listener.valid
