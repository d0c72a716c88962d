"""Everything that a model predicts with, as one pytree."""

from __future__ import annotations

from typing import Any, NamedTuple

from dsaml_jax.meta import MetaParams


class Weights(NamedTuple):
    """Everything that a model predicts with, before or after it is adapted.

    Attributes:
      meta_params: the shared weights, and the learned rates of the inner loop that adapts them ({}
        if the rates are fixed).
      batch_stats: running statistics of batch normalization; {} if none are tracked.
    """

    meta_params: MetaParams
    batch_stats: Any

    @property
    def params(self) -> Any:
        """The shared weights."""
        return self.meta_params.params

    @property
    def variables(self) -> dict[str, Any]:
        """The arguments of the model's `apply`."""
        return {"params": self.params, "batch_stats": self.batch_stats}
