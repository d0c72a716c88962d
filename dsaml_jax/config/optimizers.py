"""Optimizers by the name of their function in optax."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dsaml_jax import meta
from dsaml_jax.constraints import NonNegativeFloat, check, check_fields
from dsaml_jax.errors import UserError

SAFE = "safe_"
"""Before the name of an optimizer: its meta-gradients are finite, see `meta.safe`."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer of optax."""

    # Name of a function of optax, with "safe_" before it for `meta.safe`, such as "safe_adam".
    name: str
    # Its keyword arguments, e.g. learning_rate.
    options: Mapping[str, Any]

    def __post_init__(self):
        check_fields(self, "optimizer")
        rate = self.options.get("learning_rate")
        if isinstance(rate, int | float):
            check(NonNegativeFloat, rate, "optimizer.options.learning_rate")
        self._check_update(self.build())

    def build(self, **changes: Any) -> optax.GradientTransformation:
        """Returns the transformation, with some options replaced by `changes`.

        Raises:
          UserError: there is no such optimizer, or it refuses the options.
        """
        name = self.name.removeprefix(SAFE)
        # optax has names with this prefix too, which are no optimizers.
        is_safe = name != self.name and hasattr(optax, name)
        function = getattr(optax, name if is_safe else self.name, None)
        if not callable(function):
            near = difflib.get_close_matches(name, optax.__all__, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UserError(f"optimizer.name: optax has no {self.name!r}{hint}")
        options = {**self.options, **changes}
        try:
            built = function(**options)
        except TypeError as error:
            known = ", ".join(inspect.signature(function).parameters)
            raise UserError(
                f"optimizer: {self.name} does not take the options {options} ({error}); "
                f"it takes {known}."
            ) from error
        if not isinstance(built, optax.GradientTransformation):
            raise UserError(
                f"optimizer.name: optax.{self.name} is not an optimizer; expected one such as "
                "'adam'."
            )
        return meta.safe(built) if is_safe else built

    def _check_update(self, built: optax.GradientTransformation) -> None:
        """Raises UserError unless an update can be traced; optax does not check options before."""
        params = jax.ShapeDtypeStruct((2, 2), jnp.float32)
        try:
            jax.eval_shape(lambda p: built.update(p, built.init(p), p), params)
        except Exception as error:  # an option of the wrong type can raise anything
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"optimizer: {self.name} cannot be used with the options {dict(self.options)} "
                f"({reason}); expected those that optax.{self.name} documents."
            ) from error
