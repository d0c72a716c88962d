"""Every size and switch of the model, with the paper's values as defaults."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from dsaml_jax.errors import UserError, one_of

NORMALIZATIONS = ("clip", "batch", "running")
POSITIONS = ("relative_key", "relative_key_query", "none")
DTYPES = ("bfloat16", "float16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class DSAMLConfig:
    """Sizes and switches of DSAML; the defaults are the released model (29 M parameters).

    Attributes:
      dim: model width D.
      heads: attention heads; must divide `dim`.
      layers: transformer layers.
      feed_forward: inner width of a layer's feed-forward block.
      local_width, global_width: half-widths of the two attention bands, in segments (0.5 s each).
      local_attention, global_attention: the two passes; with both off, one unmasked pass remains.
      position: "relative_key" (query · distance embedding), "relative_key_query" (and key ·
        distance embedding), or "none".
      max_positions: longest sequence the distance table serves (2 · max_positions - 1 rows).
      channels: output channels of the adapter's two 3-tap convolutions.
      adapter_clips: clips the adapter computes at once; speed and memory only.
      normalization: statistics of the adapter's normalization.
        "clip": of the clip alone, so that its prediction does not depend on its batch (default;
          equals "batch" for a batch of one clip).
        "batch": of the whole batch, in training and after it, as released.
        "running": of the batch in training, running averages after it.
      normalization_epsilon: added to the adapter's variances.
      normalization_momentum: weight of the newest batch in the running averages.
      fusion_linear: the extra Linear(D, D) after the fusion, in the release but not in the figure.
      lstm_dim: width of each direction of the BiLSTM.
      lstm_unroll: time steps a loop iteration computes; speed only.
      predictor_dim: width between the predictor's two linear layers.
      dropout: rate on attention maps, block outputs and in the predictor.
      layer_norm_epsilon: of the transformer's LayerNorms.
      dtype: of the arithmetic; statistics are never below float32.
      param_dtype: of the weights.
    """

    dim: int = 1024
    heads: int = 16
    layers: int = 3
    feed_forward: int = 2048
    local_width: int = 5
    global_width: int = 30
    local_attention: bool = True
    global_attention: bool = True
    position: str = "relative_key"
    max_positions: int = 512
    channels: tuple[int, int] = (8, 16)
    adapter_clips: int = 1
    normalization: str = "clip"
    normalization_epsilon: float = 1e-5
    normalization_momentum: float = 0.1
    fusion_linear: bool = True
    lstm_dim: int = 256
    lstm_unroll: int = 1
    predictor_dim: int = 256
    dropout: float = 0.1
    layer_norm_epsilon: float = 1e-12
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self):
        one_of("model.normalization", self.normalization, NORMALIZATIONS)
        one_of("model.position", self.position, POSITIONS)
        one_of("model.dtype", self.dtype, DTYPES)
        one_of("model.param_dtype", self.param_dtype, DTYPES)
        sizes = ("dim", "heads", "layers", "feed_forward", "max_positions", "lstm_dim")
        for name in (*sizes, "lstm_unroll", "predictor_dim", "adapter_clips"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.dim % self.heads:
            raise UserError(
                f"model.dim is {self.dim}, which model.heads = {self.heads} does not divide; "
                "choose a multiple."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model.dropout is {self.dropout}; expected 0 <= dropout < 1.")

    @property
    def bands(self) -> tuple[int | None, ...]:
        """Half-widths of the passes that are on, local first; (None,) is one unmasked pass."""
        switched = (
            (self.local_attention, self.local_width),
            (self.global_attention, self.global_width),
        )
        return tuple(width for on, width in switched if on) or (None,)

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.dtype)

    @property
    def statistics_dtype(self) -> jnp.dtype:
        """Of means, variances and softmax: `dtype`, but never below float32."""
        return jnp.promote_types(self.dtype, jnp.float32)
