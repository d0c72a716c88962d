"""Dual-scale attention transformer: one set of weights, run under a local and a global band mask.

Both passes are stacked into one batch, so that every weight is read once for the two of them.
Shapes: P passes (local first), N clips, H heads, S segments, D width, K = D / H.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

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
        maps = []
        for i in range(self.config.layers):
            x, attention = EncoderLayer(self.config, name=f"layer_{i}")(x, bias_PSS, deterministic)
            maps.append(attention)
        return jax.nn.sigmoid(x.sum(0)), jnp.stack(maps, axis=1)


class EncoderLayer(nn.Module):
    """Post-LayerNorm encoder layer (Vaswani et al. 2017; Devlin et al. 2019), exact GELU."""

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, bias_PSS: jax.Array, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        config = self.config

        def add_and_norm(residual, update, name):
            update = nn.Dropout(config.dropout)(update, deterministic=deterministic)
            norm = nn.LayerNorm(
                epsilon=config.layer_norm_epsilon,
                dtype=config.compute_dtype,
                param_dtype=jnp.dtype(config.param_dtype),
                use_fast_variance=False,
                name=name,
            )
            return norm(residual + update)

        attended, maps = RelativeAttention(config, name="attention")(x, bias_PSS, deterministic)
        x = add_and_norm(x, attended, "attention_norm")
        hidden = linear(config, config.feed_forward, "expand")(x)
        hidden = jax.nn.gelu(hidden, approximate=False)
        return add_and_norm(x, linear(config, config.dim, "contract")(hidden), "output_norm"), maps


class RelativeAttention(nn.Module):
    """Multi-head attention with learned embeddings of the distance i - j.

    score_ij = (q_i · k_j + q_i · e_(i-j) [+ k_j · e_(i-j)]) / sqrt(K) + bias_ij, the bracket for
    position "relative_key_query" (Shaw et al. 2018; Huang et al. 2020).
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, bias_PSS: jax.Array, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
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
        dropped = nn.Dropout(config.dropout)(maps, deterministic=deterministic)
        mixed = jnp.einsum("...hij,...jhk->...ihk", dropped.astype(x.dtype), value)
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
