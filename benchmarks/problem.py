"""Sizes of the meta-step that is timed, as flags, and random inputs of those sizes.

Imports only NumPy, so that either side of a comparison runs without the other's libraries.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """Sizes of a meta-step; those not listed are as in the paper.

    Attributes:
      dim, heads, layers: Sizes of the transformer.
      tasks: Annotators per meta-step.
      tasks_per_device: Tasks computed at once; 0 for all.
      inner_steps: Number K of steps of SGD with learning rate `inner_rate`.
      shots, queries: Songs of an annotator for adaptation and for testing.
      estimator: Estimator of the meta-gradient, "first_order" or "second_order".
      engine: Engine of exact meta-gradients; the PyTorch baseline has none.
      dtype: Type of the arithmetic.
      dropout: Dropout rate; 0 makes two implementations agree number by number.
      normalization: Normalization of the adapter; the PyTorch release uses "batch".
      segments, frames, bands: Sizes of a clip's log-mel images [S, T, F].
    """

    dim: int = 128
    heads: int = 4
    layers: int = 3
    tasks: int = 4
    tasks_per_device: int = 1
    inner_steps: int = 5
    shots: int = 1
    queries: int = 15
    estimator: str = "first_order"
    engine: str = "remat"
    dtype: str = "float32"
    dropout: float = 0.1
    normalization: str = "batch"
    segments: int = 60
    frames: int = 51
    bands: int = 128
    feed_forward: int = 2048
    lstm_dim: int = 256
    predictor_dim: int = 256
    inner_rate: float = 5e-3

    @property
    def songs(self) -> int:
        """Songs per task."""
        return self.shots + self.queries


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with a flag for each field of `Problem`."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for field in dataclasses.fields(Problem):
        flags.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return flags


def from_flags(flags: argparse.Namespace) -> Problem:
    """Returns the problem that the flags describe."""
    return Problem(**{f.name: getattr(flags, f.name) for f in dataclasses.fields(Problem)})


def random_songs(problem: Problem, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns `log_mel` [N, S, T, F], `embedding` [N, D] and `curve` [N, S, 2]; N = tasks x songs.

    Only their means and standard deviations are those of music and its ratings.
    """
    rng = np.random.default_rng(seed)
    count = problem.tasks * problem.songs
    image = (problem.segments, problem.frames, problem.bands)
    log_mel = rng.standard_normal((count, *image), np.float32) * 2 - 5
    embedding = rng.standard_normal((count, problem.dim), np.float32)
    steps = rng.standard_normal((count, problem.segments, 2), np.float32)
    curve = np.tanh(np.cumsum(0.1 * steps, axis=1))
    return {"log_mel": log_mel, "embedding": embedding, "curve": curve.astype(np.float32)}


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
