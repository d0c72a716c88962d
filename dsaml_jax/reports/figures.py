"""Figures: listeners' curves over time, learning curves, the inner loop's loss.

Every figure is 1000 pixels wide, so that it reads in a README, and uses the colors of Okabe and
Ito, which people with a color vision deficiency can tell apart. matplotlib's `Figure` is used
directly: no window, no global state.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsaml_jax.datasets.schema import DIMENSIONS, RATING_HZ
from dsaml_jax.evaluation.metrics import METRICS, sequence_metrics
from dsaml_jax.runtime.files import atomic_write

BLACK, BLUE, ORANGE, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, GRAY, YELLOW = "#CC79A7", "#56B4E9", "#888888", "#E69F00"
_ROW_COLORS = {
    "constant": GRAY,
    "population": SKY,
    "shifted": PURPLE,
    "wrong_listener": GREEN,
    "adapted": ORANGE,
    "oracle": BLACK,
}
_OTHER_COLORS = (BLUE, YELLOW)
_WIDTH, _DPI = 10.0, 100


@dataclasses.dataclass(frozen=True)
class ListenerCurves:
    """One listener's rating of one song and what was predicted for it.

    Attributes:
      listener_id, song_id: for the title.
      rating, population: [L, 2] (arousal, valence).
      adapted: [L, 2]; None where nobody is adapted to.
      control: [L, 2], adapted on another listener's ratings; None to leave it out.
      valid: [L] bool; None if every frame is rated.
    """

    listener_id: str
    song_id: str
    rating: np.ndarray
    population: np.ndarray
    adapted: np.ndarray | None = None
    control: np.ndarray | None = None
    valid: np.ndarray | None = None


def listener_figure(path: str | os.PathLike[str], listeners: Sequence[ListenerCurves]) -> None:
    """Rating, population curve and adapted curve over time: a column a listener.

    Args:
      path: of the PNG.
      listeners: two to four read best.
    """
    figure = _figure(height=5.2)
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
        lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False
    )
    _save(figure, path)


def learning_curves(path: str | os.PathLike[str], history: Sequence[Mapping[str, Any]]) -> None:
    """Training loss and score, and validation CCC of every row, by meta-step.

    Args:
      path: of the PNG.
      history: lines of `metrics.jsonl`: each with `step`; those of training with `train/loss` and
        `train/score`, those of validation with `validation/ROW/ccc`. Other keys are not drawn,
        and neither is what is missing or null.
    """
    figure = _figure(height=3.6)
    loss, score, validation = figure.subplots(1, 3)
    panels = ((loss, "loss", BLUE, "lower is better"), (score, "score", GREEN, "higher is better"))
    for axis, name, color, better in panels:
        steps, values = _series(history, f"train/{name}")
        axis.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
        axis.plot(steps, _smooth(values), color=color, linewidth=1.8)
        axis.set_title(f"training {name} ({better})", fontsize=10)
    rows = {key.split("/")[1]: None for line in history for key in line if _is_row(key)}
    others = itertools.cycle(_OTHER_COLORS)
    for row in rows:
        steps, values = _series(history, f"validation/{row}/ccc")
        validation.plot(
            steps,
            values,
            color=_ROW_COLORS[row] if row in _ROW_COLORS else next(others),
            marker="o" if len(steps) < 40 else None,
            markersize=3,
            linewidth=1.5,
            label=row.replace("_", " "),
        )
    validation.set_title("validation CCC (higher is better)", fontsize=10)
    if rows:
        figure.legend(loc="outside lower right", ncols=len(rows), fontsize=9, frameon=False)
    for axis in (loss, score, validation):
        axis.set_xlabel("meta-step")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _save(figure, path)


def inner_loop_figure(
    path: str | os.PathLike[str], support: np.ndarray, query: np.ndarray | None = None
) -> None:
    """What adapting does to the loss: median over tasks and the band of its middle half.

    Args:
      path: of the PNG.
      support: [tasks, K + 1], loss on the support song before the first inner step (0) to after
        the last (K).
      query: [tasks, K + 1], loss on the query songs at the same weights; None if not measured.
    """
    figure = _figure(height=3.8)
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
    _save(figure, path)


def data_figure(
    path: str | os.PathLike[str],
    values: Mapping[str, np.ndarray],
    ratings_a_song: Sequence[int],
    songs_an_annotator: Sequence[int],
) -> None:
    """What a data set holds: the distribution of values, and how ratings are spread.

    Args:
      path: of the PNG.
      values: [N, 2] (arousal, valence) by who gave them; two at most, empty ones are not drawn.
      ratings_a_song: of each song that people rated.
      songs_an_annotator: of each annotator.
    """
    spread = {"ratings a song": ratings_a_song, "songs an annotator": songs_an_annotator}
    spread = {title: counts for title, counts in spread.items() if len(counts)}
    figure = _figure(height=3.6)
    axes = figure.subplots(1, len(DIMENSIONS) + len(spread), squeeze=False)[0]
    drawn = {"bins": np.linspace(-1, 1, 41), "density": True, "histtype": "step", "linewidth": 1.6}
    for i, name in enumerate(DIMENSIONS):
        for (label, curves), color in zip(values.items(), (BLUE, ORANGE), strict=False):
            if len(curves):
                axes[i].hist(curves[:, i], color=color, label=label, **drawn)
        axes[i].set_title(f"{name} (density)", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(values), frameon=False)
    for axis, (title, counts) in zip(axes[len(DIMENSIONS) :], spread.items(), strict=True):
        axis.plot(np.arange(1, len(counts) + 1), np.sort(counts)[::-1], color=GREEN, linewidth=2)
        axis.set_ylim(bottom=0)
        if max(counts) > 10 * min(counts):  # a few people rate nearly everything
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(f"{title.split()[-1]}s, most first")
    _save(figure, path)


def study_figure(
    path: str | os.PathLike[str],
    *,
    losses: np.ndarray,
    cosine: np.ndarray,
    norm: np.ndarray,
    eigenvalues: np.ndarray,
) -> None:
    """The inner loop of K steps: loss, curvature, and the meta-gradient carried back through it.

    Args:
      path: of the PNG.
      losses: [K], support loss before each step.
      cosine, norm: [K + 1], of the gradient at θ_0 ... θ_K, relative to that at θ_K.
      eigenvalues: [K, 2], largest and smallest of the support loss's Hessian.
    """
    figure = _figure(height=3.4)
    left, middle, right = figure.subplots(1, 3)
    left.plot(losses, color=BLUE, marker="o", markersize=3)
    left.set_title("support loss", fontsize=10)
    for values, label, color in zip(
        eigenvalues.T, ("largest", "smallest"), (ORANGE, SKY), strict=True
    ):
        middle.plot(values, color=color, marker="o", markersize=3, label=label)
    middle.set_title("Hessian eigenvalues", fontsize=10)
    right.plot(cosine, color=BLUE, marker="o", markersize=3, label="cosine to first order")
    right.plot(norm, color=ORANGE, marker="o", markersize=3, label="norm / first order")
    right.set_title("gradient carried back to step", fontsize=10)
    for axis in (left, middle, right):
        axis.set_xlabel("inner step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (middle, right):
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _draw_listener(axis: Axes, listener: ListenerCurves, dimension: int) -> None:
    seconds = np.arange(len(listener.rating)) / RATING_HZ
    valid = _valid(listener)

    def draw(curves, label, **style):
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
    ccc = {}
    for name in ("population", "adapted"):
        curves = getattr(listener, name)
        if curves is None:
            continue
        values = sequence_metrics(
            curves[None], listener.rating[None], _valid(listener)[None], name
        )["ccc"].mean()
        ccc[name] = "undefined" if math.isnan(values) else f"{values:z.2f}"
    told = f"CCC {ccc['population']}"
    told += f", adapted {ccc['adapted']}" if "adapted" in ccc else ""
    return f"{_short(listener.listener_id)}\n{_short(listener.song_id)}\n{told}"


def _short(name: str, longest: int = 24) -> str:
    """Of a long id its end, where ids differ: titles of neighboring columns must not meet."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _valid(listener: ListenerCurves) -> np.ndarray:
    return np.ones(len(listener.rating), bool) if listener.valid is None else listener.valid


def _is_row(key: str) -> bool:
    parts = key.split("/")
    return len(parts) == 3 and parts[0] == "validation" and parts[2] == METRICS[0]


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the lines that have this key."""
    points = [(line["step"], line[key]) for line in history if line.get(key) is not None]
    return tuple(np.reshape(np.asarray(points, np.float64), (-1, 2)).T)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A moving mean over a tenth of the run, over what there is of it at both ends."""
    if len(values) == 0:
        return values
    kernel = np.ones(2 * (len(values) // 20) + 1)
    present = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / present


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#EEEEEE", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=9)
    # No software version in the file: the same curves give the same bytes.
    with atomic_write(Path(path)) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
