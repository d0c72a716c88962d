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

    @nn.compact
    def __call__(
        self,
        local_NSX: Float[Array, "clips segments flat"],
        embedding: Float[Array, "clips *rows global_dim"],
    ) -> Float[Array, "clips segments dim"]:
        """Returns the fused features of each segment; `embedding` is [N, G] or [N, S, G]."""
        config = self.config
        embedding = embedding.astype(config.compute_dtype)
        if embedding.shape[-1] != config.dim:
            embedding = linear(config, config.dim, "project_global")(embedding)
        local = linear(config, config.dim, "project_local")(local_NSX)
        if embedding.ndim == 2:
            embedding = embedding[:, None, :]
        fused = jax.nn.sigmoid(local + embedding)
        return linear(config, config.dim, "mix")(fused) if config.fusion_linear else fused
