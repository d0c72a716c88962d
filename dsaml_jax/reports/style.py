"""The common look of all figures.

Figures are 1000 pixels wide, to fit a README, in the colors of Okabe and Ito, which people with a
color vision deficiency can tell apart. matplotlib's `Figure` is used directly: no window and no
global state.
"""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsaml_jax.runtime.files import atomic_write

BLACK, BLUE, ORANGE, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, GRAY, YELLOW = "#CC79A7", "#56B4E9", "#888888", "#E69F00"

_WIDTH, _DPI = 10.0, 100


def new_figure(height: float) -> Figure:
    """Makes an empty figure of a height in inches."""
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Styles all axes and writes a PNG."""
    for axis in figure.axes:
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=9)
    save_plain(figure, path)


def save_plain(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG with a light grid, and with the tick labels as they are."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#EEEEEE", linewidth=0.8)
    # Leave out the software version, so that the same data give the same bytes.
    with atomic_write(Path(path)) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
