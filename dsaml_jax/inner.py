"""How a run adapts and what it differentiates, as a config says it."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from dsaml_jax.errors import UserError, at_least, one_of
from dsaml_jax.meta import ENGINES, RATES, InnerLoop, Learner, Unrolled
from dsaml_jax.model import ENCODER
from dsaml_jax.optimizers import OptimizerConfig

ESTIMATORS = ("first_order", "second_order")

ADAPTED = {
    "all": ("*",),
    "head": ("predictor",),
    "encoder": ENCODER,
    "norm": ("*norm*",),
}
"""Names for subsets of the model's weights; "head" is ANIL."""


@dataclasses.dataclass(frozen=True)
class InnerConfig:
    """The inner loop, and the estimator of its meta-gradient.

    Attributes:
      steps: K.
      adapt: what is adapted: a name of `ADAPTED`, or patterns of weight paths with commas between,
        such as "predictor/output, transformer/layer_1/*".
      optimizer: of the inner loop.
      rates: what is learned of its rates, one of `meta.RATES`.
      rates_learning_rate: outer learning rate of the rates; 0 for that of the weights.
      estimator: one of `ESTIMATORS`.
      engine: how exact meta-gradients are computed, one of `meta.ENGINES`.
      chunk: inner steps between stored weights; 0 stores them after every step.
      multi_step: share of meta-training in which the query loss counts after every inner step, less
        and less (MAML++); 0 for the last step alone.
    """

    steps: int
    adapt: str
    optimizer: OptimizerConfig
    rates: str
    rates_learning_rate: float
    estimator: str
    engine: str
    chunk: int
    multi_step: float

    def __post_init__(self):
        at_least("inner.steps", self.steps, 0)
        at_least("inner.chunk", self.chunk, 0)
        at_least("inner.rates_learning_rate", self.rates_learning_rate, 0)
        one_of("inner.rates", self.rates, RATES)
        one_of("inner.estimator", self.estimator, ESTIMATORS)
        one_of("inner.engine", self.engine, tuple(ENGINES))
        if not self.patterns:
            raise UserError(
                f"inner.adapt is {self.adapt!r}; expected {', '.join(ADAPTED)}, or patterns of "
                "weight paths with commas between."
            )
        if not 0 <= self.multi_step <= 1:
            raise UserError(
                f"inner.multi_step is {self.multi_step}; expected a share of training, 0 to 1."
            )
        if self.rates == "fixed" and self.rates_learning_rate:
            raise UserError(
                f"inner.rates_learning_rate is {self.rates_learning_rate}, but inner.rates is "
                f"'fixed': choose what is learned, {', '.join(RATES[1:])}, or set it to 0."
            )

    @property
    def patterns(self) -> tuple[str, ...]:
        """Path patterns of what is adapted."""
        named = ADAPTED.get(self.adapt)
        return named or tuple(part.strip() for part in self.adapt.split(",") if part.strip())

    def loop(self) -> InnerLoop:
        """The inner loop."""
        return InnerLoop(self.steps, self.optimizer.build(), self.patterns, self.rates)

    def build_estimator(self) -> Unrolled:
        """The estimator of the meta-gradient."""
        engine = dataclasses.replace(ENGINES[self.engine], chunk=self.chunk)
        exact_steps = {"first_order": 0, "second_order": None}[self.estimator]
        return Unrolled(exact_steps, engine, self.multi_step)

    def without_steps(self) -> InnerConfig:
        """No adaptation: ordinary training on the query songs."""
        return dataclasses.replace(
            self,
            steps=0,
            adapt="all",
            rates="fixed",
            rates_learning_rate=0.0,
            estimator="first_order",
            multi_step=0.0,
        )


def outer_optimizer(
    optimizer: OptimizerConfig, clip_norm: float, inner: InnerConfig
) -> optax.GradientTransformation:
    """The optimiser of (weights, rates): clipping of their joint norm, then a rule for each.

    Args:
      optimizer: of the weights; the rates get its rule with `inner.rates_learning_rate`.
      clip_norm: largest global norm of a meta-gradient; 0 for no clipping.
      inner: says what is learned.
    """
    built = optimizer.build()
    if inner.rates_learning_rate:
        rates = optimizer.build(learning_rate=inner.rates_learning_rate)
        built = optax.multi_transform(
            {"params": built, "rates": rates}, Learner(params="params", rates="rates")
        )
    if not clip_norm:
        return built
    return optax.chain(optax.clip_by_global_norm(clip_norm), built)


def check_adapted(inner: InnerConfig, params: Any) -> None:
    """Raises UserError where a pattern of `inner.adapt` matches none of the weights."""
    try:
        inner.loop().initial_rates(params)
    except UserError as error:
        raise UserError(f"inner.adapt: {error}") from error
