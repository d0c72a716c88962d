"""Memory layout of the adapter's images: phases, each stored as one flat axis.

A 2 x 2 pooling with stride 2 and padding 1 follows both convolutions. The window (u, v) of the
second pooling depends on the rows
    2u - 1, 2u           of the second convolution,
    2u - 2 ... 2u + 1    of the first block's output,
    4u - 7 ... 4u + 2    of the input,
and on the corresponding columns, except that the first convolution is one column wide. The input is
therefore stored as 4 x 4 phases (every fourth row and column), and the first block's output as
2 x 2 phases. A phase is ONE flat axis over rows, columns and segments, in this order: a neighboring
pixel is an offset into it, and every operation is a loop over long vectors.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Phases:
    """The layout for clips of T frames x F bands x S segments.

    Phases of the first block's output have U + 1 rows and V + 1 columns. The second convolution has
    one phase of U rows and V + 1 columns per pixel of the pooling window; its last column is
    unused, and its last S values are not stored, which saves a padding. Values outside an image are
    masked.

    Attributes:
      frames: T, frames of a segment's image.
      bands: F, mel bands.
      segments: S, segments of a clip.
    """

    frames: int
    bands: int
    segments: int

    @property
    def first(self) -> tuple[int, int]:
        """Rows and columns of the first block's output, and of the second convolution."""
        return (self.frames + 2) // 2 + 1, (self.bands + 2) // 2 + 1

    @property
    def second(self) -> tuple[int, int]:
        """(U, V): rows and columns of the second block's output."""
        return self.first[0] // 2 + 1, self.first[1] // 2 + 1

    @property
    def row(self) -> int:
        """Number of values in a row of a phase."""
        return (self.second[1] + 1) * self.segments

    @property
    def first_size(self) -> int:
        """Number of values in a phase of the first block's output, L."""
        return (self.second[0] + 1) * self.row

    @property
    def second_size(self) -> int:
        """Number of stored values in a phase of the second convolution, L'."""
        return self.second[0] * self.row - self.segments

    def taps(self, clip_TFS: Float[Array, "frames bands segments"]) -> Float[Array, "2 6 pixels"]:
        """Returns the inputs of the first block's pixels: [2 columns, 6 rows, 2 phases x L]."""
        rows, columns = self.second
        pad_rows = (7, 4 * (rows + 2) - 7 - self.frames)
        pad_columns = (6, 4 * (columns + 1) - 6 - self.bands)
        padded = jnp.pad(clip_TFS, (pad_rows, pad_columns, (0, 0)))
        phases = padded.reshape(rows + 2, 4, columns + 1, 2, 2, self.segments)
        phases = phases.transpose(4, 1, 3, 0, 2, 5).reshape(2, 4, 2, -1)
        taps = [phases[..., : self.first_size], phases[:, :2, :, self.row :]]
        return jnp.concatenate(taps, 1).reshape(2, 6, -1)

    def neighbors(
        self, x: Float[Array, "channels phase_pixels"]
    ) -> Float[Array, "four_channels window_pixels"]:
        """Returns each pixel's values and those to the right, below, and below right: [4 C, L']."""
        offsets = (0, self.segments, self.row, self.row + self.segments)
        return jnp.concatenate([x[:, start : start + self.second_size] for start in offsets])

    def first_conv_rows(self) -> Bool[np.ndarray, "2 2 phase_pixels"]:
        """Marks the rows of the first convolution: [2 rows of the window, 2 row phases, L]."""
        window, phase, index = np.ogrid[:2, :2, : self.second[0] + 1]
        row = 4 * (index - 1) + 2 * phase - 1 + window
        return np.repeat((row >= 0) & (row < self.frames + 2), self.row, axis=-1)

    def first_pixels(self) -> Bool[np.ndarray, "2 2 phase_pixels"]:
        """Marks the pixels of the first block's output: [2 row phases, 2 column phases, L]."""
        return self._pixels(self.second[0] + 1, before=2)

    def second_conv_pixels(self) -> Bool[np.ndarray, "4 window_pixels"]:
        """Marks the pixels of the second convolution: [4 pixels of the window, L']."""
        return self._pixels(self.second[0], before=1)[..., : self.second_size].reshape(4, -1)

    def images(self, x_L: Float[Array, " window_pixels"]) -> Float[Array, "segments flat"]:
        """Returns the second block's output [L'] as [S, U · V]."""
        rows, columns = self.second
        x = jnp.pad(x_L, (0, self.segments)).reshape(rows, columns + 1, self.segments)
        return x[:, :columns].reshape(-1, self.segments).T

    def _pixels(self, rows: int, before: int) -> np.ndarray:
        """Marks where 2 · index + phase - before lies within `first`, by row and by column."""
        inside = []
        for count, limit in zip((rows, self.second[1] + 1), self.first, strict=True):
            phase, index = np.ogrid[:2, :count]
            position = 2 * index + phase - before
            inside.append((position >= 0) & (position < limit))
        both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        return np.repeat(both.reshape(2, 2, -1), self.segments, axis=-1)
