"""The settings of the inner loop, and what is meta-learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import optax

from dsaml_jax.errors import UserError, at_least, one_of
from dsaml_jax.meta import rates as learned
from dsaml_jax.meta.directions import DIRECTIONS, check_size
from dsaml_jax.meta.problem import Params
from dsaml_jax.meta.subset import partition

Optimizer = optax.GradientTransformation | Callable[[Params], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class InnerLoop:
    """The settings of adaptation to a task.

    Attributes:
      steps: number of inner steps, K >= 0.
      optimizer: any optax transformation; its state is initialized anew for every task. Or a
        function of the frozen weights (None in place of adapted ones) that returns one, whose
        momentum, decay or preconditioner are then meta-learned.
      adapt: path patterns of the adapted weights (see `subset.partition`); the rest is frozen.
      rates: which inner rates are learned, one of `rates.RATES`.
      proximal: λ >= 0; the loop minimizes loss(φ) + λ/2 |φ - θ|² over the adapted weights φ.
      direction: what the optimizer gets, one of `directions.DIRECTIONS`: the gradient g of this
        objective, or Newton's H⁻¹ g.

    Raises:
      UserError: a value is out of range.
    """

    steps: int
    optimizer: Optimizer
    adapt: str | tuple[str, ...] = ("*",)
    rates: str = "fixed"
    proximal: float = 0.0
    direction: str = "gradient"

    def __post_init__(self):
        at_least("inner.steps", self.steps, 0)
        one_of("inner.rates", self.rates, learned.RATES)
        at_least("inner.proximal", self.proximal, 0)
        one_of("inner.direction", self.direction, DIRECTIONS)
        if not self.adapt:
            raise UserError(
                "inner.adapt is empty; expected patterns of weight paths, such as '*' for all, or "
                "inner.steps = 0 to adapt nothing."
            )

    @property
    def patterns(self) -> tuple[str, ...]:
        """The path patterns of the adapted weights."""
        return (self.adapt,) if isinstance(self.adapt, str) else tuple(self.adapt)

    def partition(self, params: Params) -> tuple[Params, Params]:
        """Splits `params` into (adapted, frozen).

        Raises:
          UserError: a pattern matches no weight, or there are too many adapted ones for `newton`.
        """
        adapted, frozen = partition(params, self.patterns)
        check_size(self.direction, adapted)
        return adapted, frozen

    def build_optimizer(self, frozen: Params) -> optax.GradientTransformationExtraArgs:
        """Returns the optimizer of a loop with these frozen weights.

        Raises:
          UserError: `optimizer` is a function that returns something else.
        """
        built = self.optimizer
        if not isinstance(built, optax.GradientTransformation):
            built = built(frozen)
        if not isinstance(built, optax.GradientTransformation):
            raise UserError(
                f"inner.optimizer returned a {type(built).__name__}; expected an optax "
                "transformation, or a function of the frozen weights that returns one."
            )
        return optax.with_extra_args_support(built)

    def initial_rates(self, params: Params) -> learned.Rates:
        """Returns the rates before meta-training: multipliers of 1, or {} if rates are fixed."""
        return learned.initial_rates(self.rates, self.partition(params)[0], self.steps)


class MetaParams(NamedTuple):
    """The meta-parameters.

    Attributes:
      params: one tree of everything that is meta-learned but the rates. The adapted part of it is
        the start θ of the inner loop; the frozen part holds, under names of its own, whatever the
        losses, `precompute`, `init_state` and the inner optimizer take from it: other weights,
        parameters of the support loss, weights of examples, hyperparameters of the optimizer.
      rates: learned inner rates; {} if they are fixed.
    """

    params: Params
    rates: learned.Rates
