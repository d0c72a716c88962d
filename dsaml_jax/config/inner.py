"""How a run adapts, and what it differentiates."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import optax

from dsaml_jax.config.estimators import (
    EstimatorConfig,
    FirstOrderConfig,
    ImplicitConfig,
    ReptileConfig,
    TruncatedConfig,
)
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.constraints import NonNegative, NonNegativeFloat, OneOf, check_fields
from dsaml_jax.errors import UserError
from dsaml_jax.meta import DIRECTIONS, RATES, Estimator, InnerLoop, MetaParams
from dsaml_jax.model import ENCODER, MODULES

ADAPTED = {
    "all": MODULES,
    "head": ("predictor",),
    "encoder": ENCODER,
    "norm": ("*norm*",),
    "context": ("predictor/context/vector",),
}
"""Names for subsets of the model's weights; "head" is ANIL (Raghu et al. 2020), "context" CAVIA
(Zintgraf et al. 2019). None includes the decision layer or the parameters of the likelihood, which
are the same for everybody."""


@dataclasses.dataclass(frozen=True)
class InnerConfig:
    """The inner loop, and the estimator of its meta-gradient."""

    # Inner steps K; 0 for ordinary training on the query songs.
    steps: NonNegative
    # The inner optimizer; its state starts afresh for every task.
    optimizer: OptimizerConfig
    # How the meta-gradient is estimated.
    estimator: EstimatorConfig
    # What is adapted: a name of `ADAPTED`, or comma-separated patterns of weight paths, such as
    # "predictor/output, transformer/layer_1/*".
    adapt: str = "all"
    # Which inner rates are learned by the outer gradient, one of `meta.RATES` (MAML++).
    rates: Annotated[str, OneOf(RATES)] = "fixed"
    # Outer learning rate of the inner rates; 0 for that of the weights.
    rates_learning_rate: NonNegativeFloat = 0.0
    # λ of λ/2 |φ - θ|², minimized together with the support loss over the adapted weights φ: a
    # Gaussian prior with its mean at the start θ. The implicit estimator has a field of its own.
    proximal: NonNegativeFloat = 0.0
    # What the inner optimizer gets, one of `meta.DIRECTIONS`. With "newton", one step of SGD with
    # rate 1 is the exact minimizer if the inner objective is quadratic in the adapted weights.
    direction: Annotated[str, OneOf(DIRECTIONS)] = "gradient"

    def __post_init__(self):
        check_fields(self, "inner")
        if not self.patterns:
            raise UserError(
                f"inner.adapt is {self.adapt!r}; expected {', '.join(ADAPTED)}, or patterns of "
                "weight paths with commas between."
            )
        if self.rates == "fixed" and self.rates_learning_rate:
            raise UserError(
                f"inner.rates_learning_rate is {self.rates_learning_rate}, but inner.rates is "
                f"'fixed': choose what is learned, {', '.join(RATES[1:])}, or set it to 0."
            )
        estimator = self.estimator
        if isinstance(estimator, TruncatedConfig) and estimator.last_steps > self.steps:
            raise UserError(
                f"inner.estimator.last_steps is {estimator.last_steps}; 'truncated' differentiates "
                f"1 to inner.steps = {self.steps} steps exactly."
            )
        if isinstance(estimator, ReptileConfig | ImplicitConfig) and self.rates != "fixed":
            raise UserError(
                f"inner.estimator.name is {estimator.name!r}, which has no gradient for learned "
                f"inner rates, but inner.rates is {self.rates!r}: set inner.rates to 'fixed', or "
                "choose second_order."
            )
        if isinstance(estimator, ImplicitConfig) and self.proximal:
            raise UserError(
                f"inner.proximal is {self.proximal} and inner.estimator.proximal is "
                f"{estimator.proximal}: 'implicit' has a field of its own; set inner.proximal to 0."
            )

    @property
    def patterns(self) -> tuple[str, ...]:
        """Path patterns of the adapted weights."""
        return patterns(self.adapt)

    def loop(self) -> InnerLoop:
        """Returns the inner loop."""
        estimator = self.estimator
        return InnerLoop(
            self.steps,
            self.optimizer.build(),
            self.patterns,
            self.rates,
            estimator.proximal if isinstance(estimator, ImplicitConfig) else self.proximal,
            self.direction,
        )

    def build_estimator(self) -> Estimator:
        """Returns the estimator of the meta-gradient."""
        return self.estimator.build()

    def without_steps(self) -> InnerConfig:
        """Returns a config that does not adapt: ordinary training on the query songs."""
        return InnerConfig(steps=0, optimizer=self.optimizer, estimator=FirstOrderConfig())


def patterns(names: str) -> tuple[str, ...]:
    """Returns the path patterns of weights: of a name in `ADAPTED`, or those between commas."""
    return ADAPTED.get(names) or tuple(part.strip() for part in names.split(",") if part.strip())


def outer_optimizer(
    optimizer: OptimizerConfig, clip_norm: float, inner: InnerConfig
) -> optax.GradientTransformation:
    """Returns the optimizer of (weights, rates): clips their joint norm, then updates each.

    Args:
      optimizer: of the weights; the rates get its rule with `inner.rates_learning_rate`.
      clip_norm: largest global norm of a meta-gradient; 0 for no clipping.
      inner: says which rates are learned.
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
    """Raises UserError if `inner.adapt` names no weights, or too many for `inner.direction`."""
    try:
        inner.loop().partition(params)
    except UserError as error:
        raise UserError(f"inner.adapt: {error}") from error
