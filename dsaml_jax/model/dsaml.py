"""DSAML: audio features of a clip in, arousal and valence every half second out."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError
from dsaml_jax.model.adapter import SpectrogramAdapter
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.fusion import Fusion
from dsaml_jax.model.predictor import Predictor
from dsaml_jax.model.transformer import DualScaleTransformer


class Output(NamedTuple):
    """What the model says of N clips of S segments.

    Attributes:
      curve: [N, S, 2], (arousal, valence).
      attention: [P, layers, N, heads, S, S] maps before dropout; passes P in the order of
        `DSAMLConfig.bands` (local, global).
    """

    curve: jax.Array
    attention: jax.Array


ENCODER = ("adapter", "fusion", "transformer")
MODULES = (*ENCODER, "predictor")
"""The modules of the model in the order in which they run; the encoder is `DSAML.encode`."""


class DSAML(nn.Module):
    """Zhang et al., AAAI 2025: adapter -> fusion -> dual-scale transformer -> predictor.

    Call with `log_mel` [N, S, T, F], `embedding` [N, G], and `train` (dropout on, which needs a
    "dropout" key; with normalization "running", batch statistics, and the collection "batch_stats"
    may be mutable).
    """

    config: DSAMLConfig

    def setup(self):
        self.adapter = SpectrogramAdapter(self.config)
        self.fusion = Fusion(self.config)
        self.transformer = DualScaleTransformer(self.config)
        self.predictor = Predictor(self.config)

    def __call__(self, log_mel: jax.Array, embedding: jax.Array, train: bool = False) -> Output:
        x, attention = self.encode(log_mel, embedding, train)
        return Output(self.predict(x, train), attention)

    def encode(
        self, log_mel: jax.Array, embedding: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """The features [N, S, D] that the predictor reads, and the attention maps of `Output`."""
        if log_mel.ndim != 4 or embedding.ndim != 2 or len(log_mel) != len(embedding):
            raise ValueError(
                f"expected log_mel [N, S, T, F] and embedding [N, G], "
                f"got {log_mel.shape} and {embedding.shape}"
            )
        if log_mel.shape[1] > self.config.max_positions:
            raise UserError(
                f"A sequence of {log_mel.shape[1]} segments is longer than model.max_positions = "
                f"{self.config.max_positions}; raise it or predict in windows."
            )
        fused = self.fusion(self.adapter(log_mel, train), embedding)
        return self.transformer(fused, not train)

    def predict(self, x_NSD: jax.Array, train: bool = False) -> jax.Array:
        """The curve [N, S, 2] of `Output`, from features."""
        return self.predictor(x_NSD, not train).astype(self.config.statistics_dtype)


def initialize(
    config: DSAMLConfig, key: jax.Array, image: tuple[int, int], embedding_dim: int
) -> dict[str, Any]:
    """Variables (`params`, and `batch_stats` where tracked) for images of T x F and G values."""
    log_mel = jnp.zeros((1, 2, *image), config.compute_dtype)
    embedding = jnp.zeros((1, embedding_dim), config.compute_dtype)
    return jax.jit(DSAML(config).init)(key, log_mel, embedding)
