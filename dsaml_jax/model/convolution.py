"""The adapter's arithmetic on one clip: convolution, normalisation, ReLU and pooling in few passes.

It is the model's hot spot: tens of thousands of tiny images, with weights that `vmap` makes differ
from task to task, for which `lax` convolutions become grouped ones that compilers serve badly. So:
- segments are the last axis, and every operation is a long vector;
- the first convolution has one input channel: it is shifted multiply-adds, its moments follow from
  those of its input, and with normalisation, ReLU and pooling it is one pass;
- the second is one matmul over patches;
- pooling comes before shift and ReLU, with which a maximum commutes, and before the scale too once
  the scale's sign is in the kernel.

Axes: T frames, F bands, S segments, C channels (in), D channels (out).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


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
    """Moments of the 3 x 1 convolution, padded by (2, 1), of a clip, from those of its taps.

    For y = Σ_k w_k x_k over the taps k: E[y] = Σ_k w_k E[x_k], E[y²] = Σ_kl w_k w_l E[x_k x_l]; the
    expectations are of the data alone, one pass whatever the weights.
    """
    frames, bands, segments = clip_TFS.shape
    padded = jnp.pad(clip_TFS, ((2, 2), (0, 0), (0, 0))).astype(dtype)
    taps = [padded[k : k + frames + 2] for k in range(3)]
    # A column of zeros on either side belongs to the output too: it counts, and adds nothing.
    count = (frames + 2) * (bands + 2) * segments
    mean = jnp.stack([total(tap) for tap in taps]) / count
    product = {(k, m): total(taps[k] * taps[m]) / count for k in range(3) for m in range(k, 3)}
    gram = jnp.stack(
        [jnp.stack([product[min(k, m), max(k, m)] for m in range(3)]) for k in range(3)]
    )
    weights_KD = kernel[:, 0, 0].astype(dtype)
    return Moments(
        jnp.einsum("kd,k->d", weights_KD, mean),
        jnp.einsum("kd,md,km->d", weights_KD, weights_KD, gram),
    )


def first_block(clip_TFS: jax.Array, layer: Layer, moments: Moments) -> jax.Array:
    """pool(relu(norm(conv 3 x 1, padded by (2, 1)))): [T, F, S] -> [D, T'', F'', S].

    Each pooled value is the maximum over two rows and two columns of the convolution, computed from
    strided slices of the input. The convolution's outermost columns are zeros of its own padding,
    and pair with zeros of the pooling's; the row above the first pairs as a copy of the first.
    """
    frames, bands, segments = clip_TFS.shape
    padded = jnp.pad(clip_TFS, ((2, 2), (2, 2 - bands % 2), (0, 0)))
    gain, shift = layer.affine(moments)
    weights_KD = (layer.kernel[:, 0, 0] * gain).astype(clip_TFS.dtype)
    best = None
    for odd in (False, True):
        rows = [pooling_rows(padded[tap : tap + frames + 2], odd) for tap in range(3)]
        for column in range(2):
            conv = sum(
                along_segments(weights_KD[tap], segments) * rows[tap][None, :, column::2]
                for tap in range(3)
            )
            best = conv if best is None else jnp.maximum(best, conv)
    return jax.nn.relu(best + along_segments(shift.astype(best.dtype), segments))


def second_convolution(x_CTFS: jax.Array, layer: Layer) -> jax.Array:
    """conv 3 x 3, padded by (1, 1), times the sign of the scale: [C, T, F, S] -> [D, T, F, S]."""
    channels, frames, bands, segments = x_CTFS.shape
    padded = jnp.pad(x_CTFS, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.concatenate(
        [padded[:, i : i + frames, j : j + bands] for i in range(3) for j in range(3)]
    )
    kernel = (layer.kernel * sign(layer.scale)).reshape(9 * channels, -1).astype(x_CTFS.dtype)
    return (kernel.T @ patches.reshape(9 * channels, -1)).reshape(-1, frames, bands, segments)


def second_block(conv_DTFS: jax.Array, layer: Layer, moments: Moments) -> jax.Array:
    """pool(relu(norm(·))) of what `second_convolution` made; `moments` are of the same."""
    signed = layer._replace(scale=layer.scale * sign(layer.scale))
    gain, shift = signed.affine(moments)
    segments = conv_DTFS.shape[-1]
    gain, shift = (along_segments(x.astype(conv_DTFS.dtype), segments) for x in (gain, shift))
    return jax.nn.relu(max_pool(conv_DTFS) * gain + shift)


def moments_of(x_DTFS: jax.Array, dtype: jnp.dtype) -> Moments:
    """Raw moments over everything but the channel."""
    wide = x_DTFS.astype(dtype)
    count = x_DTFS[0].size
    return Moments(*(total(each, axes=(1, 2)) / count for each in (wide, wide**2)))


def max_pool(x_DTFS: jax.Array) -> jax.Array:
    """2 x 2 maximum with stride 2 and padding 1 over frames and bands.

    The border is padded with copies of itself, which leave a maximum as it is.
    """
    frames, bands = x_DTFS.shape[1:3]
    pad = ((0, 0), (1, 1 - frames % 2), (1, 1 - bands % 2), (0, 0))
    x = jnp.pad(x_DTFS, pad, mode="edge")
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


def pooling_rows(x: jax.Array, odd: bool) -> jax.Array:
    """One of the two rows in every pooling window: rows (0, 2, 4, ...) or (0, 1, 3, 5, ...)."""
    if not odd:
        return x[::2] if len(x) % 2 else jnp.concatenate([x[::2], x[-1:]])
    return jnp.concatenate([x[:1], x[1::2]])


def along_segments(x_D: jax.Array, segments: int) -> jax.Array:
    """[D] -> [D, 1, 1, S]. Spelt out, so that its transpose sums over frames and bands first, as
    vectors of segments, and over segments last."""
    return jnp.broadcast_to(x_D[:, None], (len(x_D), segments))[:, None, None]


def total(x: jax.Array, axes: tuple[int, ...] = (0, 1)) -> jax.Array:
    """Sum over `axes`, then over segments, the last axis: vectors first, as in `along_segments`."""
    return x.sum(axes).sum(-1)


def sign(x: jax.Array) -> jax.Array:
    """1 where x >= 0, else -1."""
    return jnp.where(x < 0, -1, 1).astype(x.dtype)
