"""Spectrogram adapter: each half second's log-mel image becomes one vector (the local scale).

    conv (3 x 1) -> norm -> ReLU -> pool -> conv (3 x 3) -> norm -> ReLU -> pool -> conv (1 x 1)

Convolutions are written as shifted multiply-adds (one input channel) and as one matmul over patches
(several), and pooling as a maximum of strided slices: under `vmap` over adapted weights `lax`
convolutions become grouped convolutions, which compilers serve badly.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import fan_in_uniform


class SpectrogramAdapter(nn.Module):
    """log-mel [N, S, T, F] -> [N, S, flat], flat = pooled T x pooled F (14 x 34 at full size)."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self, log_mel_NSTF: jax.Array, train: bool) -> jax.Array:
        config = self.config
        x = log_mel_NSTF.astype(config.compute_dtype)[..., None]
        x = Convolution(config, config.channels[0], (3, 1), (2, 1), name="conv_1")(x)
        x = max_pool(jax.nn.relu(Normalization(config, name="norm_1")(x, train)))
        x = Convolution(config, config.channels[1], (3, 3), (1, 1), name="conv_2")(x)
        x = max_pool(jax.nn.relu(Normalization(config, name="norm_2")(x, train)))
        x = Convolution(config, 1, (1, 1), (0, 0), name="conv_3")(x)
        return x.reshape(*x.shape[:2], -1)


class Convolution(nn.Module):
    """2-D cross-correlation over axes (-3, -2) with zero padding and stride 1; channels last."""

    config: DSAMLConfig
    features: int
    kernel_size: tuple[int, int]
    padding: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = self.kernel_size
        shape = (height, width, x.shape[-1], self.features)
        param_dtype = jnp.dtype(self.config.param_dtype)
        kernel = self.param("kernel", fan_in_uniform, shape, param_dtype).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype)
        up, left = self.padding
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(up, up), (left, left), (0, 0)])
        rows, columns = x.shape[-3] - height + 1, x.shape[-2] - width + 1
        taps = [
            x[..., i : i + rows, j : j + columns, :] for i in range(height) for j in range(width)
        ]
        kernel = kernel.reshape(-1, x.shape[-1], self.features)
        if x.shape[-1] == 1:
            out = sum(tap * weight for tap, weight in zip(taps, kernel, strict=True))
        else:
            out = jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, self.features)
        return out + bias.astype(x.dtype)


class Normalization(nn.Module):
    """Batch normalisation of [N, S, T, F, C] per channel, with the statistics the config names.

    y = scale · (x - mean) / sqrt(var + epsilon) + bias (Ioffe & Szegedy 2015); moments over S, T, F
    of each clip ("clip") or over N, S, T, F ("batch"; "running" while training). The running
    variance is the unbiased one, as in the release.
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        config = self.config
        channels = (x.shape[-1],)
        statistics, params = config.statistics_dtype, jnp.dtype(config.param_dtype)
        scale = self.param("scale", nn.initializers.ones, channels, params)
        bias = self.param("bias", nn.initializers.zeros, channels, params)
        tracked = config.normalization == "running"
        if tracked:
            running_mean = self.variable("statistics", "mean", jnp.zeros, channels, params)
            running_variance = self.variable("statistics", "variance", jnp.ones, channels, params)
        if tracked and not train:
            mean, variance = running_mean.value, running_variance.value
        else:
            axes = (1, 2, 3) if config.normalization == "clip" else (0, 1, 2, 3)
            wide = x.astype(statistics)
            mean = wide.mean(axes, keepdims=True)
            variance = jnp.square(wide - mean).mean(axes, keepdims=True)
            if tracked and not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = variance * (count / max(count - 1, 1))
                for old, new in ((running_mean, mean), (running_variance, unbiased)):
                    step = config.normalization_momentum * (new.reshape(channels) - old.value)
                    old.value = (old.value + step).astype(params)
        gain = scale * jax.lax.rsqrt(variance.astype(statistics) + config.normalization_epsilon)
        return (x * gain + (bias - mean * gain)).astype(x.dtype)


def max_pool(x: jax.Array) -> jax.Array:
    """2 x 2 maximum with stride 2 and padding 1 over axes (-3, -2) of an array that is >= 0.

    A zero pad equals the usual -inf pad there, because every window holds at least one real value.
    """
    rows, columns = x.shape[-3] // 2 + 1, x.shape[-2] // 2 + 1
    pad = [(0, 0)] * (x.ndim - 3)
    x = jnp.pad(x, [*pad, (1, x.shape[-3] % 2 == 0), (1, x.shape[-2] % 2 == 0), (0, 0)])
    x = x.reshape(*x.shape[:-3], rows, 2, columns, 2, x.shape[-1])
    return x.max(axis=(-4, -2))
