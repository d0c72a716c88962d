"""DSAML: from audio features of a clip to arousal and valence in every half second."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError
from dsaml_jax.model import overlapping
from dsaml_jax.model.adapter import SpectrogramAdapter
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.decision import Decision
from dsaml_jax.model.fusion import Fusion
from dsaml_jax.model.likelihood import Likelihood, Noise
from dsaml_jax.model.predictor import Predictor
from dsaml_jax.model.transformer import DualScaleTransformer

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class Output(NamedTuple):
    """The model's output for N clips of S segments.

    Attributes:
      curve: (arousal, valence), [N, S, 2], as `DSAML.predict` returns them.
      attention: attention maps before dropout, [P, layers, N, heads, S, S], with passes P in the
        order of `DSAMLConfig.bands` (local, global).
    """

    curve: Float[Array, "clips segments 2"]
    attention: Float[Array, "passes layers clips heads segments segments"]


ENCODER = ("adapter", "fusion", "transformer")
MODULES = (*ENCODER, "predictor")
"""The modules of the model in the order in which they run; `DSAML.encode` runs the encoder."""


class DSAML(nn.Module):
    """Adapter -> fusion -> dual-scale transformer -> predictor (Zhang et al., AAAI 2025).

    `train` turns on dropout, which needs a "dropout" key. With normalization "running" it also
    turns on batch statistics, and updates the collection "batch_stats" if that is mutable. The
    decision layer, the context and the likelihood's parameters are departures from the paper, and
    exist only where the config asks for them.
    """

    config: DSAMLConfig

    def setup(self):
        self.adapter = SpectrogramAdapter(self.config)
        self.fusion = Fusion(self.config)
        self.transformer = DualScaleTransformer(self.config)
        self.predictor = Predictor(self.config)
        if self.config.decision:
            self.decision = Decision(self.config)
        if self.config.support_loss == "likelihood":
            self.likelihood = Likelihood(self.config)

    def __call__(
        self,
        log_mel: Float[Array, "clips segments frames bands"],
        embedding: Float[Array, "clips *rows global_dim"],
        train: bool = False,
    ) -> Output:
        """Predicts the curves of clips from log-mel images and embeddings, [N, G] or [N, S, G]."""
        x, attention = self.encode(log_mel, embedding, train)
        if self.is_initializing() and self.config.support_loss == "likelihood":
            self.noise()
        return Output(self.predict(x, train), attention)

    def encode(
        self,
        log_mel: Float[Array, "clips segments frames bands"],
        embedding: Float[Array, "clips *rows global_dim"],
        train: bool = False,
    ) -> tuple[
        Float[Array, "clips segments dim"],
        Float[Array, "passes layers clips heads segments segments"],
    ]:
        """Returns the features [N, S, D] that `predict` takes, and the maps of `Output`.

        Raises:
          ValueError: the inputs have the wrong rank or different numbers of clips or segments.
          UserError: the sequence is longer than `DSAMLConfig.max_positions`.
        """
        leading = embedding.shape[:-1]
        if log_mel.ndim != 4 or leading not in (log_mel.shape[:1], log_mel.shape[:2]):
            raise ValueError(
                f"expected log_mel [N, S, T, F] and embedding [N, G] or [N, S, G], "
                f"got {log_mel.shape} and {embedding.shape}"
            )
        if log_mel.shape[1] > self.config.max_positions:
            raise UserError(
                f"The sequence of {log_mel.shape[1]} segments is longer than model.max_positions = "
                f"{self.config.max_positions}; raise it or predict in windows."
            )
        fused = self.fusion(self.adapter(log_mel, train), embedding)
        return self.transformer(fused, not train)

    def describe(
        self, log_mel: Float[Array, "clips segments frames bands"]
    ) -> Float[Array, "clips segments dim"]:
        """Returns the local features of each segment, outside of training.

        With normalization "running" they depend on no other segment.
        """
        return self.fusion.project_local(self.adapter(log_mel, False))

    def encode_described(
        self,
        local_NSD: Float[Array, "clips segments dim"],
        embedding: Float[Array, "clips *rows global_dim"],
    ) -> Float[Array, "clips segments dim"]:
        """Returns the features that `encode` does, from the local features of `describe`."""
        return self.transformer(self.fusion.fuse(local_NSD, embedding), True)[0]

    def encode_overlapping(
        self,
        local_LD: Float[Array, "block dim"],
        embedding: Float[Array, "*rows global_dim"],
        starts_B: Int[Array, " windows"],
        segments: int,
    ) -> Float[Array, "windows {segments} dim"]:
        """Returns the features of overlapping windows of one song, as `encode` does for each.

        What they share is computed once, see `overlapping`.

        Args:
          local_LD: local features of a block of L segments, from `describe`.
          embedding: the embedding of each segment, [L, G], or one for all windows, [G].
          starts_B: the place of each window's first segment in the block.
          segments: S.
        """
        fused_LD = self.fusion.fuse(local_LD[None], embedding[None])[0]
        return overlapping.encode_overlapping(self.transformer, fused_LD, starts_B, segments)

    def predict(
        self, x_NSD: Float[Array, "clips segments dim"], train: bool = False
    ) -> Float[Array, "clips segments 2"]:
        """Returns the curves of `Output` from features."""
        return self.decide(self.expect(x_NSD, train))

    def expect(
        self, x_NSD: Float[Array, "clips segments dim"], train: bool = False
    ) -> Float[Array, "clips segments 2"]:
        """Returns the curves before the decision layer, which the support loss compares."""
        return self.predictor(x_NSD, not train).astype(self.config.statistics_dtype)

    def basis(
        self, x_NSD: Float[Array, "clips segments dim"], train: bool = False
    ) -> Float[Array, "clips segments hidden"]:
        """Returns what the output layer reads, see `Predictor.basis`."""
        return self.predictor.basis(x_NSD, not train).astype(self.config.statistics_dtype)

    def read(
        self, basis_NSP: Float[Array, "clips segments hidden"]
    ) -> Float[Array, "clips segments 2"]:
        """Returns the curves before the decision layer from what the output layer reads."""
        return self.predictor.read(basis_NSP).astype(self.config.statistics_dtype)

    def decide(
        self, curve_NSd: Float[Array, "clips segments 2"]
    ) -> Float[Array, "clips segments 2"]:
        """Applies the decision layer, if the model has one."""
        return self.decision(curve_NSd) if self.config.decision else curve_NSd

    def noise(self) -> Noise:
        """Returns the parameters of the likelihood."""
        return self.likelihood()


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def initialize(
    config: DSAMLConfig, key: PRNGKeyArray, image: tuple[int, int], embedding_dim: int
) -> dict[str, Any]:
    """Initializes the variables: `params`, and `batch_stats` if they are tracked.

    Args:
      config: the model.
      key: random key.
      image: size of a segment's log-mel image, (T, F).
      embedding_dim: size of the embeddings, G, whether of clips or of segments.
    """
    log_mel = jnp.zeros((1, 2, *image), config.compute_dtype)
    embedding = jnp.zeros((1, embedding_dim), config.compute_dtype)
    return cast(dict[str, Any], DSAML(config).init(key, log_mel, embedding))
