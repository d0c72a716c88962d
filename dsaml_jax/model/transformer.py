"""Dual-scale attention transformer: one set of weights with a local and a global band mask.

Both passes are stacked into one batch, so every weight is read only once.
Shapes: P passes (local first), N clips, H heads, S segments, D width, K = D / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

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

    def setup(self):
        for i in range(self.config.layers):
            setattr(self, f"layer_{i}", EncoderLayer(self.config))

    @property
    def layers(self) -> list[EncoderLayer]:
        """The layers in order."""
        return [getattr(self, f"layer_{i}") for i in range(self.config.layers)]

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
        for i, layer in enumerate(self.layers):
            x, attention = layer(x, bias_PSS, factors[3 * i : 3 * i + 3])
            maps.append(attention)
        return jax.nn.sigmoid(x.sum(0)), jnp.stack(maps, axis=1)


class EncoderLayer(nn.Module):
    """Post-LayerNorm encoder layer (Vaswani et al. 2017; Devlin et al. 2019) with exact GELU."""

    config: DSAMLConfig

    def setup(self):
        config = self.config
        self.attention = RelativeAttention(config)
        self.attention_norm = LayerNorm(config)
        self.expand = linear(config, config.feed_forward)
        self.contract = linear(config, config.dim)
        self.output_norm = LayerNorm(config)

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
        on_maps, on_attended, on_hidden = factors
        attended, maps = self.attention(x, bias_PSS, on_maps)
        return self.transform(x, attended, on_attended, on_hidden), maps

    def transform(
        self,
        x: Float[Array, "*batch dim"],
        attended: Float[Array, "*batch dim"],
        on_attended: jax.Array | float = 1.0,
        on_hidden: jax.Array | float = 1.0,
    ) -> Float[Array, "*batch dim"]:
        """Returns the layer's output from its input and that of its attention, by segment."""
        x = self.attention_norm(x + attended * on_attended)
        hidden = self.contract(gelu(self.expand(x)))
        return self.output_norm(x + hidden * on_hidden)


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


class Projections(NamedTuple):
    """What attention compares and mixes, each [..., S, H, K].

    Attributes:
      query, key, value: the three projections of a layer's input, by head.
    """

    query: Float[Array, "*batch segments heads head_dim"]
    key: Float[Array, "*batch segments heads head_dim"]
    value: Float[Array, "*batch segments heads head_dim"]


class RelativeAttention(nn.Module):
    """Multi-head attention with learned embeddings of the distance i - j.

    score_ij = (q_i · k_j + q_i · e_(i-j) [+ k_j · e_(i-j)]) / sqrt(K) + bias_ij, where the bracket
    is for position "relative_key_query" (Shaw et al. 2018; Huang et al. 2020).
    """

    config: DSAMLConfig

    def setup(self):
        config = self.config
        self.query, self.key, self.value = (linear(config, config.dim) for _ in range(3))
        self.output = linear(config, config.dim)
        if config.position != "none":
            shape = 2 * config.max_positions - 1, config.dim // config.heads
            dtype = jnp.dtype(config.param_dtype)
            self.distance = self.param("distance", nn.initializers.normal(0.02), shape, dtype)

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
        return self.attend(self.project(x), bias_PSS[:, None, None], factor)

    def project(self, x: Float[Array, "*batch segments dim"]) -> Projections:
        """Returns the projections of a layer's input, each of which depends on its segment only."""
        shape = *x.shape[:-1], self.config.heads, x.shape[-1] // self.config.heads
        return Projections(*(f(x).reshape(shape) for f in (self.query, self.key, self.value)))

    def attend(
        self,
        projected: Projections,
        bias: Float[Array, "*bias queries keys"],
        factor: Float[Array, "*batch heads queries keys"] | float = 1.0,
        first: int = 0,
    ) -> tuple[Float[Array, "*batch queries dim"], Float[Array, "*batch heads queries keys"]]:
        """Returns the attention's output, and the maps before dropout.

        Args:
          projected: the layer's input; there may be fewer queries than keys and values.
          bias: added to the attention scores, broadcast over batch and heads.
          factor: dropout factor of the maps.
          first: place of the first query among the keys.
        """
        config, (query, key, value) = self.config, projected
        queries, keys = query.shape[-3], key.shape[-3]
        scores = jnp.einsum("...ihk,...jhk->...hij", query, key)
        if config.position != "none":
            # Row m of `near` embeds the distance i - j = first + queries - 1 - m.
            lowest = config.max_positions + first - keys
            near = self.distance[lowest : lowest + queries + keys - 1][::-1].astype(query.dtype)
            scores += skew(jnp.einsum("...ihk,mk->...him", query, near))
            if config.position == "relative_key_query":
                # Seen from the keys, the table is reversed.
                by_key = skew(jnp.einsum("...jhk,mk->...hjm", key, near[::-1]))
                scores += by_key.swapaxes(-1, -2)
        scores = scores.astype(config.statistics_dtype) / jnp.sqrt(
            jnp.asarray(query.shape[-1], config.statistics_dtype)
        )
        maps = jax.nn.softmax(scores + bias.astype(scores.dtype))
        dropped = maps.astype(value.dtype) * factor
        mixed = jnp.einsum("...hij,...jhk->...ihk", dropped, value)
        return self.output(mixed.reshape(*mixed.shape[:-2], config.dim)), maps


def band_bias(
    segments: int, half_width: int | None, queries: int | None = None, first: int = 0
) -> Float[Array, "queries {segments}"]:
    """Returns 0 where |i - j| <= half_width and MASKED elsewhere; None means no mask.

    Args:
      segments: S, the number of keys j.
      half_width: of the band.
      queries: the number of queries i; by default as many as keys.
      first: place of the first query among the keys.
    """
    shape = segments if queries is None else queries, segments
    if half_width is None:
        return jnp.zeros(shape)
    distance = jnp.abs(first + jnp.arange(shape[0])[:, None] - jnp.arange(segments)[None, :])
    return jnp.where(distance <= half_width, 0.0, MASKED)


def skew(
    x: Float[Array, "*batch queries distances"],
) -> Float[Array, "*batch queries keys"]:
    """Returns out[i, j] = x[i, j - i + Q - 1] of shape [..., Q, S], for x [..., Q, Q + S - 1].

    out[i, j] is element (Q - 1) + i (Q + S - 2) + j of the flattened x, so slices and a reshape
    suffice. Their transposes are as cheap; the transpose of a gather would be a scatter.
    """
    size, width = x.shape[-2:]
    if size == 1:
        return x
    flat = x.reshape(*x.shape[:-2], -1)
    flat = flat[..., size - 1 : size - 1 + size * (width - 1)]
    return flat.reshape(*x.shape[:-1], width - 1)[..., : width - size + 1]
