"""Predicted curves of one song."""

from __future__ import annotations

import dataclasses
import io

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS

DIGITS = 7
"""Decimals that files state; curves are float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """What a listener is predicted to feel in each half second of a song, and what everybody is.

    Attributes:
      song: path of the audio file.
      time_s: [T] float64, start of each half second from the start of the audio.
      personal: [T, 2] float32, (arousal, valence) of the listener, by the meta-learned weights
        adapted to the listener's ratings; None without a listener.
      population: [T, 2] float32, the curves of the population model, the same for everybody.
    """

    song: str
    time_s: np.ndarray
    personal: np.ndarray | None
    population: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the columns of the CSV by name.

        `arousal` and `valence` are the listener's, or the population's without a listener.
        """
        best = self.population if self.personal is None else self.personal
        named = {"time_s": self.time_s}
        named |= {name: best[:, i] for i, name in enumerate(DIMENSIONS)}
        return named | {f"population_{d}": self.population[:, i] for i, d in enumerate(DIMENSIONS)}

    def to_csv(self) -> str:
        """Returns the curves as a CSV."""
        columns = self.columns()
        out = io.StringIO()
        out.write(",".join(columns) + "\n")
        for time, *values in zip(*columns.values(), strict=True):
            cells = [f"{time:.6g}", *(f"{value:.{DIGITS}f}" for value in values)]
            out.write(",".join(cells) + "\n")
        return out.getvalue()
