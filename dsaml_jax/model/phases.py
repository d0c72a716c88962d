"""Where the adapter's pixels lie in memory: images as phases, a phase as one flat axis.

Both convolutions are followed by a 2 x 2 pooling with stride 2 and padding 1. Seen from the window
(u, v) of the second pooling, the rows that matter are
    2u - 1, 2u           of the second convolution,
    2u - 2 ... 2u + 1    of the first block's output,
    4u - 7 ... 4u + 2    of the input;
columns alike, but for the first convolution, which is one column wide. So the input is kept as its
4 x 4 phases (every fourth row and column), the first block's output as 2 x 2. A pixel of a phase
stands for all segments, and row after row a phase is ONE axis: what a window sees beside or below
is an offset into it, and every operation is a loop over long vectors.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Phases:
    """Sizes for clips of T frames x F bands x S segments.

    The first block's output has phases of U + 1 rows and V + 1 columns, the second convolution one
    of U rows and V + 1 columns, the last of which is void (as are the S values left out at its
    end, which saves a padding). What lies outside an image is masked.
    """

    frames: int
    bands: int
    segments: int

    @property
    def first(self) -> tuple[int, int]:
        """MethodCurves and columns of the first block's output, and of the second convolution."""
        return (self.frames + 2) // 2 + 1, (self.bands + 2) // 2 + 1

    @property
    def second(self) -> tuple[int, int]:
        """(U, V): rows and columns of the second block's output."""
        return self.first[0] // 2 + 1, self.first[1] // 2 + 1

    @property
    def row(self) -> int:
        """Values in a row of a phase."""
        return (self.second[1] + 1) * self.segments

    @property
    def first_size(self) -> int:
        """Values in a phase of the first block's output."""
        return (self.second[0] + 1) * self.row

    @property
    def second_size(self) -> int:
        """Values in the second convolution's phase."""
        return self.second[0] * self.row - self.segments

    def taps(self, clip_TFS: jax.Array) -> jax.Array:
        """What a pixel of the first block's output sees: [2 columns, 6 rows, 2 phases x L]."""
        rows, columns = self.second
        pad_rows = (7, 4 * (rows + 2) - 7 - self.frames)
        pad_columns = (6, 4 * (columns + 1) - 6 - self.bands)
        padded = jnp.pad(clip_TFS, (pad_rows, pad_columns, (0, 0)))
        phases = padded.reshape(rows + 2, 4, columns + 1, 2, 2, self.segments)
        phases = phases.transpose(4, 1, 3, 0, 2, 5).reshape(2, 4, 2, -1)
        taps = [phases[..., : self.first_size], phases[:, :2, :, self.row :]]
        return jnp.concatenate(taps, 1).reshape(2, 6, -1)

    def neighbors(self, x: jax.Array) -> jax.Array:
        """[X, L] -> [4 X, L']: a pixel's own values, those of the right, below, and below right."""
        offsets = (0, self.segments, self.row, self.row + self.segments)
        return jnp.concatenate([x[:, start : start + self.second_size] for start in offsets])

    def first_conv_rows(self) -> np.ndarray:
        """[2 rows of the window, 2 row phases, L]: is it a row of the first convolution?"""
        window, phase, place = np.ogrid[:2, :2, : self.second[0] + 1]
        row = 4 * (place - 1) + 2 * phase - 1 + window
        return np.repeat((row >= 0) & (row < self.frames + 2), self.row, axis=-1)

    def first_pixels(self) -> np.ndarray:
        """[2 row phases, 2 column phases, L]: is it a pixel of the first block's output?"""
        return self._pixels(self.second[0] + 1, before=2)

    def second_conv_pixels(self) -> np.ndarray:
        """[4 pixels of the window, L']: is it a pixel of the second convolution?"""
        return self._pixels(self.second[0], before=1)[..., : self.second_size].reshape(4, -1)

    def images(self, x_L: jax.Array) -> jax.Array:
        """The second block's output [L'] as [S, U · V]."""
        rows, columns = self.second
        x = jnp.pad(x_L, (0, self.segments)).reshape(rows, columns + 1, self.segments)
        return x[:, :columns].reshape(-1, self.segments).T

    def _pixels(self, rows: int, before: int) -> np.ndarray:
        """Whether (2 · place + phase - before), by row and by column, is within `first`."""
        inside = []
        for count, limit in zip((rows, self.second[1] + 1), self.first, strict=True):
            phase, place = np.ogrid[:2, :count]
            index = 2 * place + phase - before
            inside.append((index >= 0) & (index < limit))
        both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        return np.repeat(both.reshape(2, 2, -1), self.segments, axis=-1)
