"""The adapter's arithmetic on one clip: a few large matmuls and a few passes over long vectors.

The adapter is the model's hot spot: tens of thousands of tiny images, with weights that differ from
task to task under `vmap`, which turns `lax` convolutions into grouped ones that compilers handle
badly. Therefore:
- a convolution computes all positions of a pooling window in one matmul with a sparse
  (block-Toeplitz) matrix, whose zeros cost less than extracting a patch around every position;
- pooling selects among blocks of the matmul's rows; derivatives of a selection, of any order, are
  selections, whereas derivatives of a maximum split among ties;
- the first convolution's moments are computed from those of its input;
- the second kernel contains the sign of the scale, so pooling can precede normalization.

Axes: T frames, F bands, S segments, C channels (in), D channels (out), L and L' pixels of a phase
(see `phases`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.model.phases import Phases

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Moments(NamedTuple):
    """First and second raw moments of a convolution's output without its bias.

    Attributes:
      mean: mean of each channel, [D].
      square: mean square of each channel, [D].
    """

    mean: Float[Array, "*clips channels"]
    square: Float[Array, "*clips channels"]

    @property
    def variance(self) -> Float[Array, "*clips channels"]:
        """The population variance of each channel, [D]."""
        return jnp.maximum(self.square - self.mean**2, 0.0)


class Layer(NamedTuple):
    """The weights of a convolution and of the normalization that follows.

    Attributes:
      kernel: kernel of the convolution, [rows, columns, C, D].
      scale: scale of the normalization, [D].
      bias: bias of the normalization, [D].
      epsilon: added to the variance.
    """

    kernel: Float[Array, "rows columns inputs outputs"]
    scale: Float[Array, " outputs"]
    bias: Float[Array, " outputs"]
    epsilon: float

    def affine(self, moments: Moments) -> tuple[Float[Array, " outputs"], Float[Array, " outputs"]]:
        """Returns (gain, shift) [D] such that norm(conv(x)) = gain · conv(x) + shift."""
        gain = self.scale * jax.lax.rsqrt(moments.variance + self.epsilon)
        return gain, self.bias - gain * moments.mean


def first_moments(
    clip_TFS: Float[Array, "frames bands segments"],
    kernel: Float[Array, "3 1 1 channels"],
    dtype: jnp.dtype,
) -> Moments:
    """Computes the moments of a clip's 3 x 1 convolution, padded by (2, 1), from its own moments.

    For y_t = Σ_k w_k x_(t+k-2): E[y] = Σ_k w_k E[x], E[y²] = Σ_km w_k w_m E[x_t x_(t+|k-m|)]. With
    this padding every tap sees every frame; the zeros of the padding count as values.
    """
    frames, bands, segments = clip_TFS.shape
    clip = clip_TFS.astype(dtype)
    count = (frames + 2) * (bands + 2) * segments
    lagged = jnp.stack([(clip[lag:] * clip[: frames - lag]).sum() for lag in range(3)]) / count
    lag = jnp.abs(jnp.arange(3)[:, None] - jnp.arange(3)[None])
    weights_KD = kernel[:, 0, 0].astype(dtype)
    return Moments(
        weights_KD.sum(0) * (clip.sum() / count),
        jnp.einsum("kd,md,km->d", weights_KD, weights_KD, lagged[lag]),
    )


def first_block(
    taps: Float[Array, "2 6 pixels"], layer: Layer, moments: Moments, phases: Phases
) -> Float[Array, "phases_channels phase_pixels"]:
    """Computes pool(relu(norm(conv 3 x 1, padded by (2, 1)))) from `Phases.taps`.

    Returns the four phases of the output, [4 D, L].
    """
    gain, shift = layer.affine(moments)
    weights_DK = (layer.kernel[:, 0, 0] * gain[None]).T.astype(taps.dtype)
    channels = len(weights_DK)
    # Rows of the window, then phases: the kernel takes four positions among the six taps.
    toeplitz = jnp.concatenate([jnp.pad(weights_DK, ((0, 0), (i, 3 - i))) for i in (0, 2, 1, 3)])
    conv = jnp.broadcast_to(toeplitz, (2, *toeplitz.shape)) @ taps
    conv = conv.reshape(4, 2, channels, 2, -1)
    x = pool(conv, np.tile(phases.first_conv_rows(), (2, 1, 1))[:, :, None, None])
    x = jax.nn.relu(x + shift.astype(x.dtype)[None, :, None, None])
    return jnp.where(phases.first_pixels()[:, None], x, 0).reshape(4 * channels, -1)


def second_convolution(
    x: Float[Array, "phases_channels phase_pixels"], layer: Layer, phases: Phases
) -> Float[Array, "4 outputs window_pixels"]:
    """Computes the 3 x 3 convolution, padded by (1, 1), times the sign of the scale.

    Args:
      x: four phases of the first block's output, [4 C, L].
      layer: weights.
      phases: sizes.

    Returns:
      The four pixels of each pooling window, [4, D, L'], undefined where there is no pixel.
    """
    *_, inputs, outputs = layer.kernel.shape
    kernel = (layer.kernel * sign(layer.scale)[None, None, None]).astype(x.dtype)
    no_padding = ((0, 0), (0, 0))
    toeplitz = jnp.stack(
        [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), *no_padding)) for i in range(2) for j in range(2)]
    )
    # The 4 x 4 inputs of the window in the order of `neighbors`: offsets first, then phases.
    toeplitz = toeplitz.reshape(4, 2, 2, 2, 2, inputs, outputs).transpose(1, 3, 2, 5, 4, 0, 6)
    toeplitz = toeplitz.reshape(16 * inputs, 4 * outputs)
    conv = jnp.einsum("ij,il->jl", toeplitz, phases.neighbors(x))
    return conv.reshape(4, outputs, -1)


def second_moments(
    conv: Float[Array, "4 outputs window_pixels"], phases: Phases, dtype: jnp.dtype
) -> Moments:
    """Computes the moments of the output of `second_convolution` over its pixels."""
    exists = phases.second_conv_pixels()[:, None]
    conv = jnp.where(exists, conv.astype(dtype), 0)
    rows, columns = phases.first
    count = rows * columns * phases.segments
    return Moments(*(x.sum(-1).sum(0) / count for x in (conv, conv**2)))


def second_block(
    conv: Float[Array, "4 outputs window_pixels"], layer: Layer, moments: Moments, phases: Phases
) -> Float[Array, "outputs window_pixels"]:
    """Computes pool(relu(norm(·))), [D, L'], of the output of `second_convolution`.

    `moments` are the moments of the same output.
    """
    signed = layer._replace(scale=layer.scale * sign(layer.scale))
    gain, shift = (x.astype(conv.dtype)[:, None] for x in signed.affine(moments))
    return jax.nn.relu(pool(conv, phases.second_conv_pixels()[:, None]) * gain + shift)


def pool(x: Float[Array, "window=4 *shape"], exists: np.ndarray) -> Float[Array, "*shape"]:
    """Returns the largest of the values that exist among the four along the first axis.

    It splits instead of slicing because the transpose of a split is a single concatenation.
    """

    def larger(a, a_exists, b, b_exists):
        return jnp.where(a_exists & ((a >= b) | ~b_exists), a, b), a_exists | b_exists

    a, b, c, d = zip((part[0] for part in jnp.split(x, 4)), exists, strict=True)
    return larger(*larger(*a, *b), *larger(*c, *d))[0]


def sign(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns 1 where x >= 0, else -1."""
    return jnp.where(x < 0, -1, 1).astype(x.dtype)
