"""ImageBind's audio tower, which maps a waveform to one embedding per clip, in Flax Linen.

Source: Girdhar et al., ImageBind: One Embedding Space To Bind Them All, CVPR 2023
(arXiv 2305.05665), and https://github.com/facebookresearch/ImageBind. The filter bank of each clip
(see `imagebind_input`) is an image for a vision transformer; the embeddings of a waveform's clips,
all scaled to the same learned length, are averaged.

The published weights are licensed CC BY-NC 4.0: no commercial use. They are read by
`dsaml_jax.interop.imagebind`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.imagebind_input import (
    PUBLISHED,
    ImageBindRecipe,
    imagebind_fbank,
    select_clips,
)

Variables = Mapping[str, Any]

_NORM_EPSILON = 1e-6
_STEM_NORM_EPSILON = 1e-5  # ImageBind uses PyTorch's default in this one LayerNorm
_LARGEST_SCALE = 100.0


@dataclasses.dataclass(frozen=True)
class ImageBindConfig:
    """Sizes of the tower; the defaults are imagebind_huge's.

    Attributes:
      width: Width of the residual stream.
      blocks: Number of transformer blocks.
      heads: Number of attention heads.
      output: Width of the embedding.
      bins: Height of the image: mel bands.
      frames: Width of the image: frames.
      patch: Size of the square patches.
      stride: Distance between patches, which overlap.
      dtype: Precision of the computation.
      param_dtype: Precision of the weights.
    """

    width: int = 768
    blocks: int = 12
    heads: int = 12
    output: int = 1024
    bins: int = 128
    frames: int = 204
    patch: int = 16
    stride: int = 10
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def tokens(self) -> int:
        """Number of tokens: the patches and the class token."""
        rows, columns = ((n - self.patch) // self.stride + 1 for n in (self.bins, self.frames))
        return rows * columns + 1


IMAGEBIND_HUGE = ImageBindConfig()
"""The only size whose weights are published."""


class _Attention(nn.Module):
    """Multi-head attention with one extra key and value that are weights, not tokens."""

    config: ImageBindConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        width, heads = config.width, config.heads
        dense = functools.partial(_dense, config)
        query, key, value = jnp.split(dense(3 * width, name="in_projection")(x), 3, axis=-1)

        def with_bias(tokens: jax.Array, name: str) -> jax.Array:
            bias = self.param(name, nn.initializers.normal(), (1, 1, width), config.param_dtype)
            bias = jnp.broadcast_to(bias.astype(tokens.dtype), (len(tokens), 1, width))
            return jnp.concatenate([tokens, bias], axis=1)

        def by_head(tokens: jax.Array) -> jax.Array:
            return tokens.reshape(*tokens.shape[:2], heads, width // heads)

        query, key, value = (
            by_head(query),
            by_head(with_bias(key, "bias_key")),
            by_head(with_bias(value, "bias_value")),
        )
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key, precision="highest")
        weights = nn.softmax(scores * (width // heads) ** -0.5)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", weights, value, precision="highest")
        return dense(width, name="out_projection")(mixed.reshape(x.shape))


class _Block(nn.Module):
    """A transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    config: ImageBindConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(_dense, self.config)
        x = x + _Attention(self.config, name="attention")(_norm(self.config, name="norm_1")(x))
        hidden = dense(4 * self.config.width, name="mlp_1")(_norm(self.config, name="norm_2")(x))
        return x + dense(self.config.width, name="mlp_2")(nn.gelu(hidden, approximate=False))


class ImageBindAudio(nn.Module):
    """The tower: [N, 1, bins, frames] normalized filter banks -> [N, output] embeddings."""

    config: ImageBindConfig = IMAGEBIND_HUGE

    @nn.compact
    def __call__(self, fbank: jax.Array) -> jax.Array:
        config = self.config
        width = config.width
        initializer = nn.initializers.normal(width**-0.5)
        patches = nn.Conv(
            width,
            (config.patch, config.patch),
            (config.stride, config.stride),
            padding="VALID",
            use_bias=False,
            precision="highest",
            dtype=config.dtype,
            param_dtype=config.param_dtype,
            name="stem",
        )(jnp.moveaxis(fbank, 1, -1))
        tokens = patches.reshape(len(fbank), -1, width)  # by frequency, then by time
        tokens = _norm(config, _STEM_NORM_EPSILON, name="stem_norm")(tokens)
        class_token = self.param("class_token", initializer, (1, 1, width), config.param_dtype)
        positions = self.param(
            "positions", initializer, (1, config.tokens, width), config.param_dtype
        )
        class_tokens = jnp.broadcast_to(class_token, (len(fbank), 1, width)).astype(tokens.dtype)
        tokens = jnp.concatenate([class_tokens, tokens], axis=1) + positions.astype(tokens.dtype)
        for block in range(config.blocks):
            tokens = _Block(config, name=f"block_{block}")(tokens)
        first = _norm(config, name="head_norm")(tokens[:, 0])
        output = _dense(config, config.output, use_bias=False, name="head")(first)
        initial_scale = nn.initializers.constant(np.log(20.0))
        log_scale = self.param("log_scale", initial_scale, (), config.param_dtype)
        length = jnp.linalg.norm(output, axis=-1, keepdims=True)
        scale = jnp.minimum(jnp.exp(log_scale), _LARGEST_SCALE)
        return scale * output / jnp.maximum(length, 1e-12)


@functools.partial(jax.jit, static_argnames="config")
def embed_fbank(variables: Variables, fbank: jax.Array, config: ImageBindConfig) -> jax.Array:
    """Returns embeddings [N, output] of [N, clips, 1, bins, frames], averaged over the clips."""
    flat = fbank.reshape(-1, *fbank.shape[2:])
    embeddings = ImageBindAudio(config).apply(variables, flat)
    assert isinstance(embeddings, jax.Array)  # `apply` returns a tuple only with `mutable`
    return embeddings.reshape(*fbank.shape[:2], -1).mean(axis=1)


def embed_waveforms(
    variables: Variables,
    waveforms: Sequence[np.ndarray],
    config: ImageBindConfig = IMAGEBIND_HUGE,
    recipe: ImageBindRecipe = PUBLISHED,
    batch: int = 8,
) -> np.ndarray:
    """Embeds waveforms of any lengths, `batch` at a time, so that one compiled program is enough.

    Args:
      variables: Variables of `ImageBindAudio(config)`; see `dsaml_jax.interop.imagebind`.
      waveforms: Each [samples], mono, full scale 1, at `recipe.sample_rate`.
      config: Sizes of the tower.
      recipe: Recipe of its input.
      batch: Waveforms per call of the tower.

    Returns:
      [len(waveforms), output] float32.

    Raises:
      UserError: A waveform is shorter than 25 ms.
    """
    clips = [select_clips(np.asarray(waveform, np.float32), recipe) for waveform in waveforms]
    return embed_clips(variables, clips, config, recipe, batch)


def embed_clips(
    variables: Variables,
    waveforms: Sequence[np.ndarray],
    config: ImageBindConfig = IMAGEBIND_HUGE,
    recipe: ImageBindRecipe = PUBLISHED,
    batch: int = 8,
) -> np.ndarray:
    """Embeds waveforms given as their clips, [clips, clip samples] each; see `embed_waveforms`."""
    parts = [np.zeros((0, config.output), np.float32)]
    for first in range(0, len(waveforms), batch):
        chosen = waveforms[first : first + batch]
        fbank = [imagebind_fbank(clips, recipe) for clips in chosen]
        fbank += [jnp.zeros_like(fbank[0])] * (batch - len(chosen))
        embeddings = embed_fbank(variables, jnp.stack(fbank), config)
        parts.append(np.asarray(embeddings[: len(chosen)], np.float32))
    return np.concatenate(parts)


def _dense(config: ImageBindConfig, features: int, **options: Any) -> nn.Dense:
    return nn.Dense(
        features,
        precision="highest",
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        **options,
    )


def _norm(config: ImageBindConfig, epsilon: float = _NORM_EPSILON, **options: Any) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=epsilon, dtype=config.dtype, param_dtype=config.param_dtype, **options
    )
