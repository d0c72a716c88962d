"""The bundle of weights that training moves, checkpoints hold, and evaluation uses."""

from __future__ import annotations

from typing import Any, NamedTuple

from dsaml_jax.meta import MetaParams


class Weights(NamedTuple):
    """Everything that a trained model predicts and adapts with.

    Attributes:
      meta_params: the shared weights θ, and the learned inner rates ({} where they are fixed).
      batch_stats: running statistics of the normalization; {} where none are tracked.
    """

    meta_params: MetaParams
    batch_stats: Any

    @property
    def params(self) -> Any:
        """The shared weights θ."""
        return self.meta_params.params

    @property
    def variables(self) -> dict[str, Any]:
        """The collections that `DSAML.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}
