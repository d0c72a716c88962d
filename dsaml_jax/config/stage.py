"""One stage of training."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import optax

from dsaml_jax.config.inner import InnerConfig, outer_optimizer
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.constraints import NonNegative, NonNegativeFloat, OneOf, Positive, check_fields

DECAYS = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of training: the population model, or meta-learning."""

    # Meta-steps; 0 skips the stage.
    steps: NonNegative
    # The outer optimizer.
    optimizer: OptimizerConfig
    # Global norm to which meta-gradients are clipped; 0 for no clipping.
    clip_norm: NonNegativeFloat = 0.0
    # How the outer rate changes over the stage: it stays "constant", or falls to 0 along half a
    # "cosine" (Loshchilov & Hutter 2017).
    decay: Annotated[str, OneOf(DECAYS)] = "constant"
    # Meta-steps between validations; the weights of the best one are kept.
    validate_every: Positive = 100
    # Meta-steps between checkpoints; each validation also writes one.
    checkpoint_every: Positive = 100
    # Meta-steps that may be skipped, in the whole stage, because their loss or gradient is not
    # finite. One more ends the run.
    skip_at_most: NonNegative = 10

    def __post_init__(self):
        check_fields(self, "")

    def build_optimizer(self, inner: InnerConfig) -> optax.GradientTransformation:
        """Returns the outer optimizer of the weights and the learned inner rates."""
        built = outer_optimizer(self.optimizer, self.clip_norm, inner)
        if self.decay == "constant":
            return built
        decay = optax.cosine_decay_schedule(1.0, max(self.steps, 1))
        return optax.chain(built, optax.scale_by_schedule(decay))
