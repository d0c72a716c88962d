"""The adapter's arithmetic on one clip: few large matmuls, and few passes over long vectors.

It is the model's hot spot: tens of thousands of tiny images, with weights that `vmap` makes differ
from task to task, for which `lax` convolutions become grouped ones that compilers serve badly. So:
- a convolution gives all positions of a pooling window at once, as one matmul with a sparse matrix
  (block-Toeplitz): its zeros cost less than patches around every single position would;
- pooling is a choice between blocks of the matmul's rows; as a choice it is differentiated, any
  number of times, by choices, where a maximum would share among ties;
- the first convolution's moments follow from those of its input;
- the scale's sign is in the second kernel, so that pooling can come before normalization.

Axes: T frames, F bands, S segments, C channels (in), D channels (out), L and L' pixels of a phase
(see `phases`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.model.phases import Phases


class Moments(NamedTuple):
    """First and second raw moment [C] of a convolution's output without its bias."""

    mean: jax.Array
    square: jax.Array

    @property
    def variance(self) -> jax.Array:
        return jnp.maximum(self.square - self.mean**2, 0.0)


class Layer(NamedTuple):
    """A convolution's `kernel` [rows, columns, C, D], and its norm's scale and bias [D]."""

    kernel: jax.Array
    scale: jax.Array
    bias: jax.Array
    epsilon: float

    def affine(self, moments: Moments) -> tuple[jax.Array, jax.Array]:
        """(gain, shift) [D] with norm(conv(x)) = gain · conv(x) + shift."""
        gain = self.scale * jax.lax.rsqrt(moments.variance + self.epsilon)
        return gain, self.bias - gain * moments.mean


def first_moments(clip_TFS: jax.Array, kernel: jax.Array, dtype: jnp.dtype) -> Moments:
    """Moments of the 3 x 1 convolution, padded by (2, 1), of a clip, from those of the clip.

    For y_t = Σ_k w_k x_(t+k-2): E[y] = Σ_k w_k E[x], E[y²] = Σ_km w_k w_m E[x_t x_(t+|k-m|)]. With
    that padding every tap meets every frame; the padding's zeros count, and add nothing.
    """
    frames, bands, segments = clip_TFS.shape
    clip = clip_TFS.astype(dtype)
    count = (frames + 2) * (bands + 2) * segments
    lagged = jnp.stack([(clip[lag:] * clip[: frames - lag]).sum() for lag in range(3)]) / count
    lag = jnp.abs(jnp.arange(3)[:, None] - jnp.arange(3))
    weights_KD = kernel[:, 0, 0].astype(dtype)
    return Moments(
        weights_KD.sum(0) * (clip.sum() / count),
        jnp.einsum("kd,md,km->d", weights_KD, weights_KD, lagged[lag]),
    )


def first_block(taps: jax.Array, layer: Layer, moments: Moments, phases: Phases) -> jax.Array:
    """pool(relu(norm(conv 3 x 1, padded by (2, 1)))) of a clip's `Phases.taps`: phases [4 D, L]."""
    gain, shift = layer.affine(moments)
    weights_DK = (layer.kernel[:, 0, 0] * gain).T.astype(taps.dtype)
    channels = len(weights_DK)
    # MethodCurves of the window, then phases: the kernel stands in four places among the six taps.
    toeplitz = jnp.concatenate([jnp.pad(weights_DK, ((0, 0), (i, 3 - i))) for i in (0, 2, 1, 3)])
    conv = jnp.broadcast_to(toeplitz, (2, *toeplitz.shape)) @ taps
    conv = conv.reshape(4, 2, channels, 2, -1)
    x = pool(conv, np.tile(phases.first_conv_rows(), (2, 1, 1))[:, :, None, None])
    x = jax.nn.relu(x + shift.astype(x.dtype)[:, None, None])
    return jnp.where(phases.first_pixels()[:, None], x, 0).reshape(4 * channels, -1)


def second_convolution(x: jax.Array, layer: Layer, phases: Phases) -> jax.Array:
    """conv 3 x 3, padded by (1, 1), times the sign of the scale: phases [4 C, L] ->
    [4 pixels of a pooling window, D, L'], void where there is no pixel."""
    *_, inputs, outputs = layer.kernel.shape
    kernel = (layer.kernel * sign(layer.scale)).astype(x.dtype)
    still = ((0, 0), (0, 0))
    toeplitz = jnp.stack(
        [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), *still)) for i in range(2) for j in range(2)]
    )
    # The window's 4 x 4 inputs in the order of `neighbors`: offsets first, then phases.
    toeplitz = toeplitz.reshape(4, 2, 2, 2, 2, inputs, outputs).transpose(1, 3, 2, 5, 4, 0, 6)
    toeplitz = toeplitz.reshape(16 * inputs, 4 * outputs)
    conv = jnp.einsum("ij,il->jl", toeplitz, phases.neighbors(x))
    return conv.reshape(4, outputs, -1)


def second_moments(conv: jax.Array, phases: Phases, dtype: jnp.dtype) -> Moments:
    """Moments of what `second_convolution` made, over its pixels."""
    exists = phases.second_conv_pixels()[:, None]
    conv = jnp.where(exists, conv.astype(dtype), 0)
    rows, columns = phases.first
    count = rows * columns * phases.segments
    return Moments(*(x.sum(-1).sum(0) / count for x in (conv, conv**2)))


def second_block(conv: jax.Array, layer: Layer, moments: Moments, phases: Phases) -> jax.Array:
    """pool(relu(norm(·))) of what `second_convolution` made, [D, L']; `moments` are of the same."""
    signed = layer._replace(scale=layer.scale * sign(layer.scale))
    gain, shift = (x.astype(conv.dtype)[:, None] for x in signed.affine(moments))
    return jax.nn.relu(pool(conv, phases.second_conv_pixels()[:, None]) * gain + shift)


def pool(x: jax.Array, exists: np.ndarray) -> jax.Array:
    """Of the four values along the first axis the largest one that exists.

    Split, not sliced: the transpose of a split is one concatenation.
    """

    def larger(a, a_exists, b, b_exists):
        return jnp.where(a_exists & ((a >= b) | ~b_exists), a, b), a_exists | b_exists

    a, b, c, d = zip((each[0] for each in jnp.split(x, 4)), exists, strict=True)
    return larger(*larger(*a, *b), *larger(*c, *d))[0]


def sign(x: jax.Array) -> jax.Array:
    """1 where x >= 0, else -1."""
    return jnp.where(x < 0, -1, 1).astype(x.dtype)
