"""How a run adapts and what it differentiates, as a config says it."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.errors import UserError, at_least, one_of
from dsaml_jax.meta import (
    ENGINES,
    RATES,
    Annealed,
    Estimator,
    Implicit,
    InnerLoop,
    MetaParams,
    Reptile,
    Unrolled,
)
from dsaml_jax.model import ENCODER

ESTIMATORS = ("first_order", "second_order", "truncated", "annealed", "reptile", "implicit")
EXACT = ("second_order", "truncated", "annealed")

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
      proximal: λ of λ/2 |φ - θ|², which is minimized together with the loss; 0 for none.
      estimator: one of `ESTIMATORS`.
      engine: how exact meta-gradients are computed, one of `meta.ENGINES`.
      chunk: inner steps between stored weights; 0 stores them after every step.
      last_steps: of "truncated", inner steps that are differentiated exactly.
      anneal_at: of "annealed", share of meta-training after which gradients are exact.
      solver_steps: of "implicit", conjugate gradient steps.
      multi_step_until: share of meta-training in which the query loss counts after every inner step, less
        and less (MAML++); 0 for the last step alone.
    """

    steps: int
    adapt: str
    optimizer: OptimizerConfig
    rates: str
    rates_learning_rate: float
    proximal: float
    estimator: str
    engine: str
    chunk: int
    last_steps: int
    anneal_at: float
    solver_steps: int
    multi_step_until: float

    def __post_init__(self):
        at_least("inner.steps", self.steps, 0)
        for name in ("chunk", "last_steps", "proximal"):
            at_least(f"inner.{name}", getattr(self, name), 0)
        at_least("inner.solver_steps", self.solver_steps, 1)
        at_least("inner.rates_learning_rate", self.rates_learning_rate, 0)
        one_of("inner.rates", self.rates, RATES)
        one_of("inner.estimator", self.estimator, ESTIMATORS)
        one_of("inner.engine", self.engine, tuple(ENGINES))
        if not self.patterns:
            raise UserError(
                f"inner.adapt is {self.adapt!r}; expected {', '.join(ADAPTED)}, or patterns of "
                "weight paths with commas between."
            )
        if not 0 <= self.multi_step_until <= 1:
            raise UserError(
                f"inner.multi_step is {self.multi_step_until}; expected a share of training, 0 to 1."
            )
        if self.rates == "fixed" and self.rates_learning_rate:
            raise UserError(
                f"inner.rates_learning_rate is {self.rates_learning_rate}, but inner.rates is "
                f"'fixed': choose what is learned, {', '.join(RATES[1:])}, or set it to 0."
            )

        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        truncated = self.estimator == "truncated"
        if truncated and not 1 <= self.last_steps <= self.steps:
            raise UserError(
                f"inner.last_steps is {self.last_steps}; 'truncated' differentiates 1 to "
                f"inner.steps = {self.steps} steps exactly."
            )
        if self.last_steps and not truncated:
            raise UserError(
                f"inner.last_steps is {self.last_steps}, which inner.estimator = "
                f"{self.estimator!r} does not have: choose 'truncated', or set it to 0."
            )
        annealed = self.estimator == "annealed"
        if annealed and not 0 < self.anneal_at < 1:
            raise UserError(
                f"inner.switch is {self.anneal_at}; 'annealed' needs a share of training between 0 "
                "(which is 'second_order') and 1 (which is 'first_order')."
            )
        if self.anneal_at and not annealed:
            raise UserError(
                f"inner.switch is {self.anneal_at}, which inner.estimator = {self.estimator!r} does "
                "not have: choose 'annealed', or set it to 0."
            )
        if self.chunk and self.estimator not in EXACT:
            raise UserError(
                f"inner.chunk is {self.chunk}, but {self.estimator!r} stores no inner steps: "
                f"choose {', '.join(EXACT)}, or set it to 0."
            )
        if self.estimator in ("reptile", "implicit"):
            self._refuse_what_is_not_unrolled()

    def _refuse_what_is_not_unrolled(self) -> None:
        if self.rates != "fixed":
            raise UserError(
                f"inner.estimator = {self.estimator!r} has no gradient for learned inner rates, "
                f"but inner.rates is {self.rates!r}: set it to 'fixed', or choose second_order."
            )
        if self.multi_step_until:
            why = {
                "reptile": "learns from the support and has no query loss",
                "implicit": "differentiates the end of the inner loop, not its steps",
            }[self.estimator]
            raise UserError(
                f"inner.multi_step is {self.multi_step_until}, but {self.estimator!r} {why}: set it to "
                "0, or choose second_order."
            )
        if self.estimator == "implicit" and not self.proximal:
            raise UserError(
                "inner.proximal is 0, but 'implicit' differentiates the solution of a proximal "
                "inner problem: set it to 1, say, and lower it while the residual stays small."
            )

    @property
    def patterns(self) -> tuple[str, ...]:
        """Path patterns of what is adapted."""
        named = ADAPTED.get(self.adapt)
        return named or tuple(part.strip() for part in self.adapt.split(",") if part.strip())

    def loop(self) -> InnerLoop:
        """The inner loop."""
        return InnerLoop(
            self.steps, self.optimizer.build(), self.patterns, self.rates, self.proximal
        )

    def build_estimator(self) -> Estimator:
        """The estimator of the meta-gradient."""
        engine = dataclasses.replace(ENGINES[self.engine], chunk=self.chunk)
        return {
            "first_order": Unrolled(0, engine, self.multi_step_until),
            "second_order": Unrolled(None, engine, self.multi_step_until),
            "truncated": Unrolled(self.last_steps, engine, self.multi_step_until),
            "annealed": Annealed(self.anneal_at, engine, self.multi_step_until),
            "reptile": Reptile(),
            "implicit": Implicit(self.solver_steps),
        }[self.estimator]

    def without_steps(self) -> InnerConfig:
        """No adaptation: ordinary training on the query songs."""
        return dataclasses.replace(
            self,
            steps=0,
            adapt="all",
            rates="fixed",
            rates_learning_rate=0.0,
            proximal=0.0,
            estimator="first_order",
            chunk=0,
            last_steps=0,
            anneal_at=0.0,
            multi_step_until=0.0,
        )


def outer_optimizer(
    optimizer: OptimizerConfig, clip_norm: float, inner: InnerConfig
) -> optax.GradientTransformation:
    """The optimizer of (weights, rates): clipping of their joint norm, then a rule for each.

    Args:
      optimizer: of the weights; the rates get its rule with `inner.rates_learning_rate`.
      clip_norm: largest global norm of a meta-gradient; 0 for no clipping.
      inner: says what is learned.
    """
    built = optimizer.build()
    if inner.rates_learning_rate:
        rates = optimizer.build(learning_rate=inner.rates_learning_rate)
        built = optax.multi_transform(
            {"params": built, "rates": rates}, MetaParams(params="params", rates="rates")
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
