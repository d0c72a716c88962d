"""Estimators of the meta-gradient, each with the fields that it has and no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Annotated, Any, Literal

from dsaml_jax.constraints import NonNegative, OneOf, Positive, PositiveFloat, Range, check_fields
from dsaml_jax.meta import ENGINES, Annealed, Engine, Estimator, Implicit, Reptile, Unrolled

_PATH = "inner.estimator"

Share = Annotated[float, Range(low=0, high=1)]
OpenShare = Annotated[float, Range(above=0, below=1)]


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """How exact meta-gradients are computed; affects time and memory, not values."""

    # One of `meta.ENGINES`.
    name: Annotated[str, OneOf(tuple(ENGINES))] = "remat"
    # Inner steps between stored weights; 0 stores them after every step.
    chunk: NonNegative = 0

    def __post_init__(self):
        check_fields(self, f"{_PATH}.engine")

    def build(self) -> Engine:
        """Returns the engine."""
        return dataclasses.replace(ENGINES[self.name], chunk=self.chunk)


@dataclasses.dataclass(frozen=True)
class FirstOrderConfig:
    """First-order MAML (Finn et al. 2017): inner gradients count as constants."""

    name: Literal["first_order"] = "first_order"
    # Share of meta-training during which the query loss counts after every inner step, with
    # weights that decay (MAML++, Antoniou et al. 2019); 0 for the last step alone.
    multi_step_until: Share = 0.0

    def __post_init__(self):
        check_fields(self, _PATH)

    def build(self) -> Estimator:
        """Returns the estimator."""
        return Unrolled(0, EngineConfig().build(), self.multi_step_until)


@dataclasses.dataclass(frozen=True)
class SecondOrderConfig:
    """Exact MAML (Finn et al. 2017)."""

    name: Literal["second_order"] = "second_order"
    engine: EngineConfig = EngineConfig()
    multi_step_until: Share = 0.0  # as in `FirstOrderConfig`

    def __post_init__(self):
        check_fields(self, _PATH)

    def build(self) -> Estimator:
        """Returns the estimator."""
        return Unrolled(None, self.engine.build(), self.multi_step_until)


@dataclasses.dataclass(frozen=True)
class TruncatedConfig:
    """Exact through the last inner steps, first order before them."""

    # Inner steps that are differentiated exactly, counted from the last; at most inner.steps.
    last_steps: Positive
    name: Literal["truncated"] = "truncated"
    engine: EngineConfig = EngineConfig()
    multi_step_until: Share = 0.0  # as in `FirstOrderConfig`

    def __post_init__(self):
        check_fields(self, _PATH)

    def build(self) -> Estimator:
        """Returns the estimator."""
        return Unrolled(self.last_steps, self.engine.build(), self.multi_step_until)


@dataclasses.dataclass(frozen=True)
class AnnealedConfig:
    """First order, then exact (MAML++, Antoniou et al. 2019)."""

    # Share of meta-training after which gradients are exact.
    anneal_at: OpenShare
    name: Literal["annealed"] = "annealed"
    engine: EngineConfig = EngineConfig()
    multi_step_until: Share = 0.0  # as in `FirstOrderConfig`

    def __post_init__(self):
        check_fields(self, _PATH)

    def build(self) -> Estimator:
        """Returns the estimator."""
        return Annealed(self.anneal_at, self.engine.build(), self.multi_step_until)


@dataclasses.dataclass(frozen=True)
class ReptileConfig:
    """Reptile (Nichol et al. 2018): learns from the support songs alone."""

    name: Literal["reptile"] = "reptile"

    def build(self) -> Estimator:
        """Returns the estimator."""
        return Reptile()


@dataclasses.dataclass(frozen=True)
class ImplicitConfig:
    """Implicit MAML (Rajeswaran et al. 2019): differentiates the solution of a proximal problem."""

    # λ of λ/2 |φ - θ|², minimized together with the support loss. Start at 1 and lower it while the
    # residual stays small.
    proximal: PositiveFloat
    name: Literal["implicit"] = "implicit"
    # Conjugate gradient steps, at most.
    solver_steps: Positive = 10

    def __post_init__(self):
        check_fields(self, _PATH)

    def build(self) -> Estimator:
        """Returns the estimator."""
        return Implicit(self.solver_steps)


EstimatorConfig = (
    FirstOrderConfig
    | SecondOrderConfig
    | TruncatedConfig
    | AnnealedConfig
    | ReptileConfig
    | ImplicitConfig
)

ESTIMATORS = {
    cls.name: cls for cls in (FirstOrderConfig, SecondOrderConfig, TruncatedConfig, AnnealedConfig)
} | {cls.name: cls for cls in (ReptileConfig, ImplicitConfig)}


def fields_of_another(values: Any, given: Collection[str]) -> list[str]:
    """Returns the fields of a config file's estimator that do not belong to the one now named.

    A name on the command line chooses another estimator than the config file did; what the file
    says of its own one no longer applies.

    Args:
      values: the estimator as a mapping, with the new name.
      given: its fields that the command line gave, which are kept to be checked.
    """
    cls = ESTIMATORS.get(values["name"])
    if cls is None:
        return []
    known = {field.name for field in dataclasses.fields(cls)}
    return [name for name in values if name not in known and name not in given]
