"""Fusion of the two scales of features: each half second's features and the song's embedding."""

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

    A learned linear map first projects embeddings of other widths than D; embeddings of width D are
    added without projection, as released.
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self,
        local_NSX: Float[Array, "clips segments flat"],
        embedding_NG: Float[Array, "clips global_dim"],
    ) -> Float[Array, "clips segments dim"]:
        """Returns the fused features of each segment."""
        config = self.config
        embedding = embedding_NG.astype(config.compute_dtype)
        if embedding.shape[-1] != config.dim:
            embedding = linear(config, config.dim, "project_global")(embedding)
        local = linear(config, config.dim, "project_local")(local_NSX)
        fused = jax.nn.sigmoid(local + embedding[:, None, :])
        return linear(config, config.dim, "mix")(fused) if config.fusion_linear else fused
