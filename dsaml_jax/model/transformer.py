"""Dual-scale attention transformer: one set of weights, run under a local and a global band mask.

Both passes are stacked into one batch, so that every weight is read once for the two of them.
Shapes: P passes (local first), N clips, H heads, S segments, D width, K = D / H.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model import dropout
from dsaml_jax.model.activations import gelu, standardize
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import linear

MASKED = -10_000.0
"""Added to the scores outside the band, as released."""


class DualScaleTransformer(nn.Module):
    """[N, S, D] -> (sigmoid of the sum of the passes [N, S, D], maps [P, layers, N, H, S, S])."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x_NSD: jax.Array, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        bands = self.config.bands
        x = jnp.broadcast_to(x_NSD, (len(bands), *x_NSD.shape))
        bias_PSS = jnp.stack([band_bias(x_NSD.shape[1], width) for width in bands])
        config, segments = self.config, x.shape[-2]
        factors = [1.0] * (3 * config.layers)
        if config.dropout and not deterministic:
            maps_shape = (*x.shape[:-2], config.heads, segments, segments)
            shapes = [maps_shape, x.shape, x.shape] * config.layers
            key = self.make_rng("dropout")
            factors = dropout.factors(key, config.dropout, shapes, x.dtype)
        maps = []
        for i in range(config.layers):
            layer = EncoderLayer(config, name=f"layer_{i}")
            x, attention = layer(x, bias_PSS, factors[3 * i : 3 * i + 3])
            maps.append(attention)
        return jax.nn.sigmoid(x.sum(0)), jnp.stack(maps, axis=1)


class EncoderLayer(nn.Module):
    """Post-LayerNorm encoder layer (Vaswani et al. 2017; Devlin et al. 2019), exact GELU."""

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, bias_PSS: jax.Array, factors: Sequence[jax.Array | float]
    ) -> tuple[jax.Array, jax.Array]:
        """`factors` of dropout: on the attention maps, after attention, after the feed-forward."""
        config = self.config
        on_maps, on_attended, on_hidden = factors
        attended, maps = RelativeAttention(config, name="attention")(x, bias_PSS, on_maps)
        x = LayerNorm(config, name="attention_norm")(x + attended * on_attended)
        hidden = gelu(linear(config, config.feed_forward, "expand")(x))
        hidden = linear(config, config.dim, "contract")(hidden)
        return LayerNorm(config, name="output_norm")(x + hidden * on_hidden), maps


class LayerNorm(nn.Module):
    """y = scale · standardize(x) + bias (Ba et al. 2016), over the last axis."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config, shape = self.config, x.shape[-1:]
        dtype = jnp.dtype(config.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        wide = x.astype(config.statistics_dtype)
        normal, _ = standardize(wide, config.layer_norm_epsilon)
        return (normal * scale + bias).astype(config.compute_dtype)


class RelativeAttention(nn.Module):
    """Multi-head attention with learned embeddings of the distance i - j.

    score_ij = (q_i · k_j + q_i · e_(i-j) [+ k_j · e_(i-j)]) / sqrt(K) + bias_ij, the bracket for
    position "relative_key_query" (Shaw et al. 2018; Huang et al. 2020).
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, bias_PSS: jax.Array, factor: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """`factor` of dropout on the maps; those that are returned are before it."""
        config = self.config
        segments, head_dim = x.shape[-2], config.dim // config.heads
        query, key, value = (
            linear(config, config.dim, name)(x).reshape(*x.shape[:-1], config.heads, head_dim)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("...ihk,...jhk->...hij", query, key)
        if config.position != "none":
            rows = 2 * config.max_positions - 1
            table = self.param(
                "distance",
                nn.initializers.normal(0.02),
                (rows, head_dim),
                jnp.dtype(config.param_dtype),
            )
            # Row m of `near` embeds the distance i - j = S - 1 - m.
            first = config.max_positions - segments
            near = table[first : first + 2 * segments - 1][::-1].astype(x.dtype)
            scores += skew(jnp.einsum("...ihk,mk->...him", query, near))
            if config.position == "relative_key_query":
                # Seen from the key the same distance runs the other way along the table.
                by_key = skew(jnp.einsum("...jhk,mk->...hjm", key, near[::-1]))
                scores += by_key.swapaxes(-1, -2)
        scores = scores.astype(config.statistics_dtype) / jnp.sqrt(
            jnp.asarray(head_dim, config.statistics_dtype)
        )
        maps = jax.nn.softmax(scores + bias_PSS[:, None, None].astype(scores.dtype))
        dropped = maps.astype(x.dtype) * factor
        mixed = jnp.einsum("...hij,...jhk->...ihk", dropped, value)
        return linear(config, config.dim, "output")(mixed.reshape(x.shape)), maps


def band_bias(segments: int, half_width: int | None) -> jax.Array:
    """[S, S]: 0 where |i - j| <= half_width, MASKED elsewhere; all 0 for None."""
    if half_width is None:
        return jnp.zeros((segments, segments))
    position = jnp.arange(segments)
    distance = jnp.abs(position[:, None] - position[None, :])
    return jnp.where(distance <= half_width, 0.0, MASKED)


def skew(x: jax.Array) -> jax.Array:
    """[..., S, 2S - 1] -> [..., S, S] with out[i, j] = x[i, j - i + S - 1].

    In the flattened array that is element (S - 1) + i (2S - 2) + j: slices and a reshape do it,
    whose transposes are as cheap, where a gather's would be a scatter.
    """
    size = x.shape[-2]
    flat = x.reshape(*x.shape[:-2], -1)
    if size == 1:
        return x
    flat = flat[..., size - 1 : size - 1 + size * (2 * size - 2)]
    return flat.reshape(*x.shape[:-1], 2 * size - 2)[..., :size]
