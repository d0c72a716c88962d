"""One stage of training."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import optax

from dsaml_jax.config.inner import InnerConfig, outer_optimizer, patterns
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.constraints import NonNegative, NonNegativeFloat, OneOf, Positive, check_fields
from dsaml_jax.meta import MetaParams
from dsaml_jax.meta.subset import partition

DECAYS = ("constant", "cosine")

EVERYTHING = "everything"


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
    # Meta-steps over which the outer rate rises linearly to its value, before it decays.
    warmup: NonNegative = 0
    # The weights that the outer optimizer moves: "everything", a name of `config.inner.ADAPTED`, or
    # comma-separated patterns of weight paths. Where none is the encoder's, every song is encoded
    # once.
    train: str = "everything"
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
        rate = self.rate_schedule()
        if rate is not None:
            built = optax.chain(built, optax.scale_by_schedule(rate))
        return built if self.train == EVERYTHING else train_only(self.trained, built)

    def rate_schedule(self) -> optax.Schedule | None:
        """Returns the factor of the outer rate by step; None if it is always 1."""
        if self.decay == "constant" and not self.warmup:
            return None
        steps = max(self.steps - self.warmup, 1)
        cosine = self.decay == "cosine"
        after = optax.cosine_decay_schedule(1.0, steps) if cosine else optax.constant_schedule(1.0)
        if not self.warmup:
            return after
        rise = optax.linear_schedule(1 / self.warmup, 1.0, self.warmup - 1)
        return optax.join_schedules([rise, after], [self.warmup])

    @property
    def trained(self) -> tuple[str, ...]:
        """Path patterns of the weights that are moved."""
        return ("*",) if self.train == EVERYTHING else patterns(self.train)


def train_only(
    moved: tuple[str, ...], optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Returns an optimizer of (weights, rates) that leaves the weights not in `moved` as they are.

    They count neither for the optimizer's state nor for the norm by which gradients are clipped.
    """

    def labels(meta_params: MetaParams) -> MetaParams:
        chosen, _ = partition(meta_params.params, moved)
        label = jax.tree.map(
            lambda leaf: "rest" if leaf is None else "moved", chosen, is_leaf=lambda x: x is None
        )
        return MetaParams(label, jax.tree.map(lambda _: "moved", meta_params.rates))

    return optax.multi_transform({"moved": optimizer, "rest": optax.set_to_zero()}, labels)
