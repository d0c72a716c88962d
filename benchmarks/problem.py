"""What is timed: the sizes of a meta-step as flags, and random inputs of those sizes.

Needs NumPy alone, so that either side of a comparison starts without the other's libraries.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """Sizes of a meta-step; what has no flag is as in the paper.

    Attributes:
      dim, heads, layers: of the transformer.
      tasks: annotators a meta-step.
      tasks_per_device: tasks computed at once, 0 for all; 1 suits a CPU's caches, 0 a GPU.
      inner_steps: K, of SGD with rate `inner_rate`.
      shots, queries: songs of an annotator to adapt on, and to be tested on.
      estimator: of the meta-gradient, "first_order" or "second_order".
      engine: of exact meta-gradients; ours alone.
      dtype: of the arithmetic.
      dropout: rate; 0 makes two implementations comparable number by number.
      normalization: of the adapter; "batch" is what the PyTorch release does.
      segments, frames, bands: of a clip's log-mel images [S, T, F].
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
        """Of each task."""
        return self.shots + self.queries


def parser(description: str) -> argparse.ArgumentParser:
    """A flag for each field of `Problem`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for field in dataclasses.fields(Problem):
        made.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return made


def from_flags(flags: argparse.Namespace) -> Problem:
    return Problem(**{f.name: getattr(flags, f.name) for f in dataclasses.fields(Problem)})


def random_songs(problem: Problem, seed: int = 0) -> dict[str, np.ndarray]:
    """`log_mel` [N, S, T, F], `embedding` [N, D] and `curve` [N, S, 2]; N = tasks x songs.

    Levels and spreads are those of music and its ratings; nothing else is alike.
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
