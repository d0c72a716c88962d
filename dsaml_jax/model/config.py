"""Sizes and options of the model, with the paper's values as defaults."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from dsaml_jax.constraints import (
    NonNegative,
    OneOf,
    Positive,
    PositiveFloat,
    Range,
    check_fields,
)
from dsaml_jax.errors import UserError

NORMALIZATIONS = ("clip", "batch", "running")
POSITIONS = ("relative_key", "relative_key_query", "none")
DTYPES = ("bfloat16", "float16", "float32", "float64")
SUPPORT_LOSSES = ("score", "likelihood")

DType = Annotated[str, OneOf(DTYPES)]


@dataclasses.dataclass(frozen=True)
class DSAMLConfig:
    """Sizes and options of DSAML; the defaults are the released model (29 M parameters)."""

    # Model width D.
    dim: Positive = 1024
    # Attention heads; must divide `dim`.
    heads: Positive = 16
    # Transformer layers; each is traced on its own.
    layers: Annotated[int, Range(low=1, high=1000)] = 3
    # Inner width of a layer's feed-forward block.
    feed_forward: Positive = 2048
    # Half-widths of the two attention bands, in segments (0.5 s each).
    local_width: NonNegative = 5
    global_width: NonNegative = 30
    # The two attention passes; with both off, one unmasked pass remains.
    local_attention: bool = True
    global_attention: bool = True
    # Position terms of the attention score: "relative_key" (query · distance embedding),
    # "relative_key_query" (and key · distance embedding), or "none".
    position: Annotated[str, OneOf(POSITIONS)] = "relative_key"
    # Longest sequence that the distance table covers (2 · max_positions - 1 rows).
    max_positions: Positive = 512
    # Output channels of the adapter's two 3-tap convolutions.
    channels: tuple[Positive, Positive] = (8, 16)
    # Clips that the adapter computes at once. Speed and memory only.
    adapter_clips: Positive = 1
    # Where the adapter's normalization takes its statistics from.
    # "clip": the clip alone, so that its prediction does not depend on its batch (equals "batch"
    #   for a batch of one clip).
    # "batch": the whole batch, in training and in evaluation, as released.
    # "running": the batch in training, running averages in evaluation.
    normalization: Annotated[str, OneOf(NORMALIZATIONS)] = "clip"
    # Added to the adapter's variances.
    normalization_epsilon: PositiveFloat = 1e-5
    # Weight of the newest batch in the running averages.
    normalization_momentum: Annotated[float, Range(low=0, high=1)] = 0.1
    # Whether a Linear(D, D) follows the fusion: it is in the release but not in the figure.
    fusion_linear: bool = True
    # Width of each direction of the BiLSTM.
    lstm_dim: Positive = 256
    # Time steps in one iteration of the LSTM's loop. Speed only.
    lstm_unroll: Positive = 1
    # Width between the predictor's two linear layers.
    predictor_dim: Positive = 256
    # Factor on what the predictor's output layer reads, 1 as released. Near one over the deviation
    # of a fresh network's, it lets all layers learn at one rate, and one prior fit all weights.
    basis_scale: PositiveFloat = 1.0
    # Dropout rate on attention maps, on block outputs and in the predictor.
    dropout: Annotated[float, Range(low=0, below=1)] = 0.1
    # Numbers Z by which the output layer can be moved along Z learned directions (CAVIA); 0 for
    # none, as released. `inner.adapt` = "context" adapts them alone.
    context_dim: NonNegative = 0
    # Whether the movement of a predicted curve is widened by a learned function of its deviation,
    # after adapting, see `model.decision`.
    decision: bool = False
    # What the inner loop minimizes: "score", 1 - mean of {CCC, PCC, 1 - RMSE} plus the attention
    # loss, as released; or "likelihood", see `model.likelihood`.
    support_loss: Annotated[str, OneOf(SUPPORT_LOSSES)] = "score"
    # Of the transformer's LayerNorms.
    layer_norm_epsilon: PositiveFloat = 1e-12
    # Of the arithmetic; statistics are never below float32.
    dtype: DType = "float32"
    # Of the weights.
    param_dtype: DType = "float32"

    def __post_init__(self):
        check_fields(self, "model")
        if self.dim % self.heads:
            raise UserError(
                f"model.dim is {self.dim}, which model.heads = {self.heads} does not divide; "
                "choose a multiple."
            )

    @property
    def bands(self) -> tuple[int | None, ...]:
        """Half-widths of the enabled passes, local first; (None,) is one unmasked pass."""
        passes = (
            (self.local_attention, self.local_width),
            (self.global_attention, self.global_width),
        )
        return tuple(width for enabled, width in passes if enabled) or (None,)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """Dtype of the arithmetic."""
        return jnp.dtype(self.dtype)

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """Dtype of means, variances and softmax: `dtype`, but never below float32."""
        return jnp.promote_types(self.dtype, jnp.float32)
