"""Dual-scale attention transformer: one set of weights with a local and a global band mask.

Both passes are stacked into one batch, so every weight is read only once.
Shapes: P passes (local first), N clips, H heads, S segments, D width, K = D / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model import dropout
from dsaml_jax.model.activations import gelu, standardize
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import linear

if TYPE_CHECKING:
    from jaxtyping import Array, Float

MASKED = -10_000.0
"""Added to attention scores outside the band, as released."""


class DualScaleTransformer(nn.Module):
    """Transformer encoder that runs one pass per attention band and sums the passes."""

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x_NSD: Float[Array, "clips segments dim"], deterministic: bool
    ) -> tuple[
        Float[Array, "clips segments dim"],
        Float[Array, "passes layers clips heads segments segments"],
    ]:
        """Returns the sigmoid of the sum of the passes, and the attention maps of all layers."""
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
    """Post-LayerNorm encoder layer (Vaswani et al. 2017; Devlin et al. 2019) with exact GELU."""

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "passes clips segments dim"],
        bias_PSS: Float[Array, "passes segments segments"],
        factors: Sequence[jax.Array | float],
    ) -> tuple[
        Float[Array, "passes clips segments dim"],
        Float[Array, "passes clips heads segments segments"],
    ]:
        """Returns the layer's output and its attention maps.

        Args:
          x: the layer's input.
          bias_PSS: added to the attention scores.
          factors: dropout factors of the attention maps, of the attention block's output, and of
            the feed-forward block's output.
        """
        config = self.config
        on_maps, on_attended, on_hidden = factors
        attended, maps = RelativeAttention(config, name="attention")(x, bias_PSS, on_maps)
        x = LayerNorm(config, name="attention_norm")(x + attended * on_attended)
        hidden = gelu(linear(config, config.feed_forward, "expand")(x))
        hidden = linear(config, config.dim, "contract")(hidden)
        return LayerNorm(config, name="output_norm")(x + hidden * on_hidden), maps


class LayerNorm(nn.Module):
    """Layer normalization over the last axis, scale · standardize(x) + bias (Ba et al. 2016)."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Returns the normalized x."""
        config, shape = self.config, x.shape[-1:]
        dtype = jnp.dtype(config.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        wide = x.astype(config.statistics_dtype)
        normal, _ = standardize(wide, config.layer_norm_epsilon)
        leading = range(x.ndim - 1)
        scale, bias = jnp.expand_dims(scale, leading), jnp.expand_dims(bias, leading)
        return (normal * scale + bias).astype(config.compute_dtype)


class RelativeAttention(nn.Module):
    """Multi-head attention with learned embeddings of the distance i - j.

    score_ij = (q_i · k_j + q_i · e_(i-j) [+ k_j · e_(i-j)]) / sqrt(K) + bias_ij, where the bracket
    is for position "relative_key_query" (Shaw et al. 2018; Huang et al. 2020).
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "passes clips segments dim"],
        bias_PSS: Float[Array, "passes segments segments"],
        factor: Float[Array, "passes clips heads segments segments"] | float,
    ) -> tuple[
        Float[Array, "passes clips segments dim"],
        Float[Array, "passes clips heads segments segments"],
    ]:
        """Returns the attention's output, and the maps before dropout.

        Args:
          x: the layer's input.
          bias_PSS: added to the attention scores.
          factor: dropout factor of the maps.
        """
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
                # The distance changes its sign from the key's point of view: the table is reversed.
                by_key = skew(jnp.einsum("...jhk,mk->...hjm", key, near[::-1]))
                scores += by_key.swapaxes(-1, -2)
        scores = scores.astype(config.statistics_dtype) / jnp.sqrt(
            jnp.asarray(head_dim, config.statistics_dtype)
        )
        maps = jax.nn.softmax(scores + bias_PSS[:, None, None].astype(scores.dtype))
        dropped = maps.astype(x.dtype) * factor
        mixed = jnp.einsum("...hij,...jhk->...ihk", dropped, value)
        return linear(config, config.dim, "output")(mixed.reshape(x.shape)), maps


def band_bias(segments: int, half_width: int | None) -> Float[Array, "{segments} {segments}"]:
    """Returns 0 where |i - j| <= half_width and MASKED elsewhere, [S, S]; None means no mask."""
    if half_width is None:
        return jnp.zeros((segments, segments))
    position = jnp.arange(segments)
    distance = jnp.abs(position[:, None] - position[None, :])
    return jnp.where(distance <= half_width, 0.0, MASKED)


def skew(x: Float[Array, "*batch size distances"]) -> Float[Array, "*batch size size"]:
    """Returns out[i, j] = x[i, j - i + S - 1] of shape [..., S, S], for x [..., S, 2S - 1].

    out[i, j] is element (S - 1) + i (2S - 2) + j of the flattened x, so slices and a reshape
    suffice. Their transposes are as cheap; the transpose of a gather would be a scatter.
    """
    size = x.shape[-2]
    flat = x.reshape(*x.shape[:-2], -1)
    if size == 1:
        return x
    flat = flat[..., size - 1 : size - 1 + size * (2 * size - 2)]
    return flat.reshape(*x.shape[:-1], 2 * size - 2)[..., :size]
