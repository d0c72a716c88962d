"""Figure and table of the gain of adapting by number of support songs."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from dsaml_jax.evaluation.bootstrap import Interval
from dsaml_jax.evaluation.songs_curve import SongsCurve
from dsaml_jax.reports.style import BLUE, GRAY, ORANGE, new_figure, save
from dsaml_jax.reports.tables import aligned, interval_text


def songs_curve_figure(path: str | os.PathLike[str], curve: SongsCurve) -> None:
    """Draws the gains with their intervals over the number of support songs.

    Args:
      path: the PNG to write.
      curve: at least one number of songs.
    """
    figure = new_figure(height=3.8)
    axis = figure.subplots()
    drawn: list[tuple[Sequence[Interval], str, str]] = [
        (curve.adapted, f"adapted − {curve.baseline}", ORANGE)
    ]
    if curve.ideal:
        drawn.append((curve.ideal, "ideal_adapted − ideal_population", BLUE))
    for intervals, label, color in drawn:
        mean, low, high = (_numbers(intervals, end) for end in ("mean", "low", "high"))
        axis.fill_between(curve.songs, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(curve.songs, mean, color=color, linewidth=2, marker="o", label=label)
    axis.axhline(0, color=GRAY, linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(curve.songs))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel("songs adapted to")
    axis.set_ylabel("gain in CCC")
    axis.set_title(
        f"{curve.annotators} annotators, {curve.sequences} sequences, 95 % intervals", fontsize=10
    )
    axis.legend(frameon=False)
    save(figure, path)


def songs_curve_table(curve: SongsCurve) -> str:
    """Formats the gains as a Markdown table, one line for each number of songs."""
    lines = [["songs", f"adapted − {curve.baseline}, CCC"]]
    lines += [[str(k), interval_text(i)] for k, i in zip(curve.songs, curve.adapted, strict=True)]
    if curve.ideal:
        lines[0] += ["ideal_adapted − ideal_population, CCC", "share"]
        for line, ideal, share in zip(lines[1:], curve.ideal, curve.share, strict=True):
            line += [interval_text(ideal), interval_text(share)]
    return "\n".join(
        [
            *aligned(lines),
            "",
            f"{curve.annotators} annotators ({curve.sequences} sequences), the same for every "
            "number of songs.",
        ]
    )


def _numbers(intervals: Sequence[Interval], name: str) -> np.ndarray:
    return np.array([getattr(interval, name) for interval in intervals], float)
