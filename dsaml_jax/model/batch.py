"""Batches of rated clips, the input of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


class Encoded(NamedTuple):
    """The encoder's output for N clips, from which the loss needs the predictor only.

    Attributes:
      features: encoder features, [N, S, D].
      attention_loss: `losses.attention_loss` of the attention maps, a scalar.
      batch_stats: updated running statistics.
    """

    features: Float[Array, "clips segments dim"]
    attention_loss: Float[Array, ""]
    batch_stats: Any


class Batch(NamedTuple):
    """N rated clips of S segments, and the other inputs of the loss that are not weights.

    Attributes:
      log_mel: natural log of mel power, [N, S, T, F]; None if `encoded` is given.
      embedding: global embedding of each clip, [N, G], or of each segment, [N, S, G]; None if
        `encoded` is given.
      curve: ratings (arousal, valence) in [-1, 1], [N, S, 2].
      valid: True where there is a rating, bool [N, S], or [N, S, 2] where one dimension may be
        rated alone; clips without ratings have no weight.
      batch_stats: running statistics of the normalization; {} if none are tracked.
      encoded: precomputed output of the encoder; the loss then runs the predictor only.
    """

    log_mel: Float[Array, "clips segments frames bands"] | None
    embedding: Float[Array, "clips *rows global_dim"] | None
    curve: Float[Array, "clips segments 2"]
    valid: Bool[Array, "clips segments *dimensions"]
    batch_stats: Any
    encoded: Encoded | None = None
