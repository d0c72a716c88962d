"""Standardization of embeddings by the statistics of the training clips."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from dsaml_jax.runtime.files import atomic_write

Array = TypeVar("Array", jax.Array, np.ndarray)


class Scaling(NamedTuple):
    """Mean and standard deviation of the training clips' embeddings.

    Attributes:
      mean: [G].
      deviation: [G]; infinite for values that never change, which are thus scaled to 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, embedding: jax.Array | np.ndarray) -> Scaling:
        """Computes the statistics of embeddings [N, G] or [N, S, G], over all but the last axis."""
        embedding = np.asarray(embedding).reshape(-1, embedding.shape[-1])
        # A constant value carries no information: scale it to 0 instead of amplifying its
        # rounding errors.
        deviation = embedding.std(0)
        varies = deviation > 1e-6 * np.maximum(1.0, np.abs(embedding).max(0))
        return cls(embedding.mean(0), np.where(varies, deviation, np.inf).astype(np.float32))

    def apply(self, embedding: Array) -> Array:
        """Scales embeddings [..., G]: (embedding - mean) / deviation."""
        return (embedding - self.mean) / self.deviation

    def save(self, path: Path) -> None:
        """Writes `mean` and `deviation` as .npz, for scaling the embeddings of new songs."""
        with atomic_write(path) as file:
            np.savez(file, **self._asdict())
