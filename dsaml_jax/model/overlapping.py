"""Overlapping windows of one song, encoded with what they share computed once.

The windows of a spliced curve start a few segments apart, so almost every segment lies in S of
them. What its features depend on decides what is shared:
- With normalization "running" the adapter depends on the segment alone (`Fusion.project`).
- If the embedding is that of each segment, or the same for all windows, so does the fusion, and
  with it the projections of the first layer.
- After l layers of a pass with half-width w, a state depends on l w segments on either side. If
  2 layers w <= S, the states in the middle of a window do not depend on the window. Only the first
  and the last l w of each window do: its edges.
A wider pass depends on its window from the first layer's maps on. Nothing here is approximate: the
results are those of each window alone, up to rounding.

Axes: L segments of a block, B windows in it, S segments of a window, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.transformer import (
    DualScaleTransformer,
    EncoderLayer,
    Projections,
    band_bias,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def middles_are_shared(config: DSAMLConfig, half_width: int | None, segments: int) -> bool:
    """Returns whether states in the middle of windows of S segments do not depend on them.

    A pass of half-width 0 is not shared either: it has no edges.
    """
    return bool(half_width) and 2 * config.layers * half_width <= segments


def encode_overlapping(
    transformer: DualScaleTransformer,
    x_LD: Float[Array, "block dim"],
    starts_B: Int[Array, " windows"],
    segments: int,
) -> Float[Array, "windows {segments} dim"]:
    """Returns what the transformer returns for each of the windows alone, without dropout.

    Args:
      transformer: a bound module.
      x_LD: fused features of a block of segments, S <= L <= `max_positions`.
      starts_B: the place of each window's first segment in the block.
      segments: S.
    """
    config = transformer.config
    projected = transformer.layers[0].attention.project(x_LD)
    passes = [
        (_in_band if middles_are_shared(config, half_width, segments) else _in_window)(
            transformer.layers, x_LD, projected, starts_B, segments, half_width
        )
        for half_width in config.bands
    ]
    return jax.nn.sigmoid(sum(passes[1:], passes[0]))


def _in_window(
    layers: list[EncoderLayer],
    x_LD: jax.Array,
    projected: Projections,
    starts_B: jax.Array,
    segments: int,
    half_width: int | None,
) -> jax.Array:
    """Runs a pass of which only the first layer's projections are shared: [B, S, D]."""
    inside = starts_B[:, None] + jnp.arange(segments)
    bias_SS = band_bias(segments, half_width)
    x = x_LD[inside]
    projected = Projections(*(y[inside] for y in projected))
    for i, layer in enumerate(layers):
        if i:
            projected = layer.attention.project(x)
        x = layer.transform(x, layer.attention.attend(projected, bias_SS)[0])
    return x


def _in_band(
    layers: list[EncoderLayer],
    x_LD: jax.Array,
    projected: Projections,
    starts_B: jax.Array,
    segments: int,
    half_width: int | None,
) -> jax.Array:
    """Runs a pass of half-width w whose states in the middle of a window are shared: [B, S, D].

    After layer l, the first and the last l w states of each window are its own. The next layer's
    own states attend to them and to shared ones.
    """
    assert half_width is not None
    block_bias = band_bias(len(x_LD), half_width)
    left = right = jnp.zeros((len(starts_B), 0, x_LD.shape[-1]), x_LD.dtype)
    for i, layer in enumerate(layers):
        if i:
            projected = layer.attention.project(x_LD)
        left, right = (
            _edge(layer, x_LD, projected, states, starts_B, segments, half_width, side)
            for states, side in ((left, 0), (right, 1))
        )
        x_LD = layer.transform(x_LD, layer.attention.attend(projected, block_bias)[0])
    edge = left.shape[1]
    middle = starts_B[:, None] + jnp.arange(edge, segments - edge)
    return jnp.concatenate([left, x_LD[middle], right], axis=1)


def _edge(
    layer: EncoderLayer,
    x_LD: jax.Array,
    projected: Projections,
    states: jax.Array,
    starts_B: jax.Array,
    segments: int,
    half_width: int,
    side: int,
) -> jax.Array:
    """Returns a layer's states at one edge of the windows, [B, (l + 1) w, D].

    Args:
      layer: layer l.
      x_LD, projected: its shared input and the projections of it.
      states: its input at that edge, [B, l w, D].
      starts_B, segments, half_width: see `_in_band`.
      side: 0 for the left edge, 1 for the right one.
    """
    own = states.shape[1]
    queries, keys = own + half_width, own + 2 * half_width

    def extended(inside: jax.Array, shared: jax.Array, size: int) -> jax.Array:
        """Returns values of the edge, own ones and shared ones, in the order of the segments."""
        places = jnp.arange(segments - size, segments - own) if side else jnp.arange(own, size)
        parts = [inside, shared[starts_B[:, None] + places]]
        return jnp.concatenate(parts[::-1] if side else parts, axis=1)

    inside = layer.attention.project(states)
    query = extended(inside.query, projected.query, queries)
    key, value = (
        extended(x, y, keys)
        for x, y in ((inside.key, projected.key), (inside.value, projected.value))
    )
    first = half_width if side else 0  # at the right edge, keys begin before the queries
    bias = band_bias(keys, half_width, queries, first)
    attended, _ = layer.attention.attend(Projections(query, key, value), bias, first=first)
    return layer.transform(extended(states, x_LD, queries), attended)
