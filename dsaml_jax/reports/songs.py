"""Figure of one song: the population's curves, a listener's, and the listener's rating."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.evaluation.metrics import sequence_metrics
from dsaml_jax.reports.style import BLACK, ORANGE, SKY, new_figure, save


class SongCurves(NamedTuple):
    """Curves of one song.

    Attributes:
      time_s: [T], from the start of the audio.
      population: [T, 2], (arousal, valence).
      personal: [T, 2]; None without a listener.
      rating: [T, 2], NaN where there is none; None without a rating.
    """

    time_s: np.ndarray
    population: np.ndarray
    personal: np.ndarray | None = None
    rating: np.ndarray | None = None


def song_figure(path: str | os.PathLike[str], title: str, curves: SongCurves) -> None:
    """Draws arousal and valence over time, and writes a PNG.

    Args:
      path: the PNG.
      title: such as the name of the song.
      curves: what is drawn.
    """
    figure = new_figure(height=4.2)
    axes = figure.subplots(len(DIMENSIONS), 1, sharex=True, squeeze=False)[:, 0]
    lines = [
        (curves.rating, "rating", {"color": BLACK, "linewidth": 2.2}),
        (curves.population, "population", {"color": SKY, "linestyle": (0, (5, 2))}),
        (curves.personal, "this listener", {"color": ORANGE}),
    ]
    alone = "o" if len(curves.time_s) == 1 else ""
    for i, name in enumerate(DIMENSIONS):
        for curve, label, style in lines:
            if curve is not None:
                axes[i].plot(curves.time_s, curve[:, i], marker=alone, label=label, **style)
        axes[i].set_ylabel(f"{name} (−1 to 1)")
        axes[i].set_ylim(-1.02, 1.02)
        axes[i].axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    axes[-1].set_xlabel("time (s)")
    # A name is no formula: "$" would start one.
    figure.suptitle(title.replace("$", r"\$"), fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def fit(curves: SongCurves) -> tuple[str, str]:
    """Returns the mean CCC of population and listener with the rating, over rated dimensions."""
    assert curves.rating is not None and curves.personal is not None
    valid, rating = np.isfinite(curves.rating), np.nan_to_num(curves.rating)

    def ccc(predicted: np.ndarray) -> str:
        values = []
        for i, name in enumerate(DIMENSIONS):
            if valid[:, i].any():
                # `sequence_metrics` masks segments, not dimensions: one dimension at a time.
                scores = sequence_metrics(predicted[None], rating[None], valid[None, :, i], name)
                values.append(float(scores["ccc"][0, i]))
        mean = float(np.mean(values))
        return "undefined" if math.isnan(mean) else f"{mean:z.3f}"

    return ccc(curves.population), ccc(curves.personal)
