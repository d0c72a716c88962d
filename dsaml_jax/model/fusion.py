"""Fusion of the two scales of features: each half second's, and the embedding of what is around."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import linear

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Fusion(nn.Module):
    """sigmoid(W local + global), followed by the release's extra linear layer.

    The global embedding is that of the clip, the same for all of its segments, or one per segment.
    A learned linear map first projects embeddings of other widths than D; embeddings of width D are
    added without projection, as released.
    """

    config: DSAMLConfig

    def setup(self):
        config = self.config
        self.project_local = linear(config, config.dim)
        self.project_global = linear(config, config.dim)
        if config.fusion_linear:
            self.mix = linear(config, config.dim)

    def __call__(
        self,
        local_NSX: Float[Array, "clips segments flat"],
        embedding: Float[Array, "clips *rows global_dim"],
    ) -> Float[Array, "clips segments dim"]:
        """Returns the fused features of each segment; `embedding` is [N, G] or [N, S, G]."""
        return self.fuse(self.project_local(local_NSX), embedding)

    def fuse(
        self,
        local_NSD: Float[Array, "clips segments dim"],
        embedding: Float[Array, "clips *rows global_dim"],
    ) -> Float[Array, "clips segments dim"]:
        """Returns the fused features from the projected local ones."""
        config = self.config
        embedding = embedding.astype(config.compute_dtype)
        if embedding.shape[-1] != config.dim:
            embedding = self.project_global(embedding)
        if embedding.ndim == 2:
            embedding = embedding[:, None, :]
        fused = jax.nn.sigmoid(local_NSD + embedding)
        return self.mix(fused) if config.fusion_linear else fused
