"""Spectrogram adapter: maps each half second's log-mel image to a vector (the local scale).

    conv (3 x 1) -> norm -> ReLU -> pool -> conv (3 x 3) -> norm -> ReLU -> pool -> conv (1 x 1)

A rematerialized loop computes clips one after another: a clip's arrays stay in the cache, and
nothing is stored for the backward pass. The arithmetic is in `convolution`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model import convolution
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.convolution import Layer, Moments
from dsaml_jax.model.initializers import fan_in_uniform
from dsaml_jax.model.phases import Phases

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class SpectrogramAdapter(nn.Module):
    """Convolutional network from log-mel images to flat features, pooled T x pooled F (14 x 34)."""

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, log_mel_NSTF: Float[Array, "clips segments frames bands"], train: bool
    ) -> Float[Array, "clips segments flat"]:
        """Returns the features of each segment."""
        config = self.config
        clips_NTFS = jnp.moveaxis(log_mel_NSTF.astype(config.compute_dtype), 1, -1)
        channels_1, channels_2 = config.channels
        kernel_1, bias_1 = ConvolutionWeights(config, (3, 1, 1, channels_1), name="conv_1")()
        kernel_2, bias_2 = ConvolutionWeights(config, (3, 3, *config.channels), name="conv_2")()
        kernel_3, bias_3 = ConvolutionWeights(config, (1, 1, channels_2, 1), name="conv_3")()
        norm_1 = Normalization(config, channels_1, name="norm_1")
        norm_2 = Normalization(config, channels_2, name="norm_2")
        layer_1 = Layer(kernel_1, *norm_1(), config.normalization_epsilon)
        layer_2 = Layer(kernel_2, *norm_2(), config.normalization_epsilon)
        last_D, last_bias = (x.astype(config.compute_dtype) for x in (kernel_3[0, 0, :, 0], bias_3))

        phases = Phases(*clips_NTFS.shape[1:])

        def for_each_clip(function: Callable, clips) -> Any:
            function = jax.checkpoint(function, prevent_cse=False)
            together = config.adapter_clips if config.adapter_clips > 1 else None
            return jax.lax.map(function, clips, batch_size=together)

        def own_moments_1(clip: jax.Array) -> Moments:
            return convolution.first_moments(clip, kernel_1, config.statistics_dtype)

        def until_second_norm(clip: jax.Array, moments_1: Moments) -> jax.Array:
            x = convolution.first_block(phases.taps(clip), layer_1, moments_1, phases)
            return convolution.second_convolution(x, layer_2, phases)

        def from_second_norm(x: jax.Array, moments_2: Moments) -> jax.Array:
            x = convolution.second_block(x, layer_2, moments_2, phases)
            # Broadcast explicitly: its gradient then sums over pixels first and over segments last.
            bias_S = jnp.broadcast_to(last_bias, phases.segments)
            return phases.images(last_D @ x) + bias_S[:, None]

        def moments_of(x: jax.Array) -> Moments:
            return convolution.second_moments(x, phases, config.statistics_dtype)

        if config.normalization == "clip":

            def one_clip(clip):
                x = until_second_norm(clip, own_moments_1(clip))
                return from_second_norm(x, moments_of(x))

            return for_each_clip(one_clip, clips_NTFS)

        if config.normalization == "running" and not train:
            moments_1 = norm_1.tracked(bias_1, signs=1.0)
            moments_2 = norm_2.tracked(bias_2, signs=convolution.sign(layer_2.scale))
            return for_each_clip(
                lambda clip: from_second_norm(until_second_norm(clip, moments_1), moments_2),
                clips_NTFS,
            )

        def second_conv_with_moments(clip):
            x = until_second_norm(clip, moments_1)
            return x, moments_of(x)

        moments_1 = _mean(for_each_clip(own_moments_1, clips_NTFS))
        conv_2, moments_2 = for_each_clip(second_conv_with_moments, clips_NTFS)
        moments_2 = _mean(moments_2)
        clips, frames, bands, segments = clips_NTFS.shape
        rows, columns = phases.first
        images = clips * segments
        norm_1.track(moments_1, bias_1, 1.0, images * (frames + 2) * (bands + 2))
        signs_2 = convolution.sign(layer_2.scale)
        norm_2.track(moments_2, bias_2, signs_2, images * rows * columns)
        return for_each_clip(lambda x: from_second_norm(x, moments_2), conv_2)


class ConvolutionWeights(nn.Module):
    """The weights of a convolution: `kernel` [rows, columns, in, out] and `bias` [out]."""

    config: DSAMLConfig
    shape: tuple[int, int, int, int]

    @nn.compact
    def __call__(
        self,
    ) -> tuple[Float[Array, "rows columns inputs outputs"], Float[Array, " outputs"]]:
        """Returns (kernel, bias)."""
        dtype = jnp.dtype(self.config.param_dtype)
        kernel = self.param("kernel", fan_in_uniform, self.shape, dtype)
        return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:], dtype)


class Normalization(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015): y = scale · (x - mean) / sqrt(var + ε) + bias.

    This module holds the weights; `convolution` does the arithmetic. For normalization "running" it
    also tracks the mean and the unbiased variance of its input. They differ from `Moments` in two
    ways: they include the convolution's bias (which cancels in the other normalizations), and they
    do not include the sign of the scale, which the second convolution's kernel contains.
    """

    config: DSAMLConfig
    channels: int

    def setup(self):
        dtype, shape = jnp.dtype(self.config.param_dtype), (self.channels,)
        self.scale = self.param("scale", nn.initializers.ones, shape, dtype)
        self.bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        if self.config.normalization == "running":
            self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
            self.variance = self.variable("batch_stats", "variance", jnp.ones, shape, dtype)

    def __call__(self) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
        """Returns (scale, bias)."""
        return self.scale, self.bias

    def tracked(self, conv_bias: jax.Array, signs: jax.Array | float) -> Moments:
        """Returns the running moments in the form of a batch's moments."""
        mean = signs * (self.mean.value - conv_bias)
        return Moments(mean, self.variance.value + mean**2)

    def track(
        self, moments: Moments, conv_bias: jax.Array, signs: jax.Array | float, count: int
    ) -> None:
        """Moves the running moments toward those of a batch of `count` values per channel."""
        if self.config.normalization != "running" or self.is_initializing():
            return
        mean = signs * moments.mean + conv_bias
        variance = moments.variance * (count / max(count - 1, 1))
        for old, new in ((self.mean, mean), (self.variance, variance)):
            step = self.config.normalization_momentum * (new - old.value)
            old.value = (old.value + step).astype(old.value.dtype)


def _mean(moments: Moments) -> Moments:
    """Averages moments over clips with equal numbers of values."""
    return jax.tree.map(lambda x: x.mean(0), moments)
