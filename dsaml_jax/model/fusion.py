"""Fusion of the two scales of features: what a half second sounds like, in what sort of song."""

from __future__ import annotations

import flax.linen as nn
import jax

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import linear


class Fusion(nn.Module):
    """sigmoid(W local + global), then the release's extra linear layer.

    local [N, S, flat], embedding [N, G] -> [N, S, D]. An embedding of another width than D is
    projected by a learned linear map first; one of width D is added as it is, as released.
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(self, local_NSX: jax.Array, embedding_NG: jax.Array) -> jax.Array:
        config = self.config
        embedding = embedding_NG.astype(config.compute_dtype)
        if embedding.shape[-1] != config.dim:
            embedding = linear(config, config.dim, "project_global")(embedding)
        local = linear(config, config.dim, "project_local")(local_NSX)
        fused = jax.nn.sigmoid(local + embedding[:, None, :])
        return linear(config, config.dim, "mix")(fused) if config.fusion_linear else fused
