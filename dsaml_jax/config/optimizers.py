"""Optimizers as a config names them."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import optax

from dsaml_jax import meta
from dsaml_jax.errors import UserError

OURS = {"safe_adam": meta.safe_adam}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Attributes: name: of a function of optax, or "safe_adam"; options: its keyword arguments."""

    name: str
    options: Mapping[str, Any]

    def __post_init__(self):
        self.build()

    def build(self, **changes: Any) -> optax.GradientTransformation:
        """The transformation, with some options changed.

        Raises:
          UserError: there is no such optimizer, or it refuses the options.
        """
        function = OURS.get(self.name) or getattr(optax, self.name, None)
        if not callable(function):
            near = difflib.get_close_matches(self.name, [*OURS, *dir(optax)], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"optimizer.name: optax has no {self.name!r}{hint or '.'}")
        options = {**self.options, **changes}
        try:
            built = function(**options)
        except TypeError as error:
            known = ", ".join(inspect.signature(function).parameters)
            raise UserError(
                f"optimizer: {self.name} does not take options {options}: {error}; "
                f"it takes {known}."
            ) from error
        if not isinstance(built, optax.GradientTransformation):
            raise UserError(
                f"optimizer.name: optax.{self.name} is no optimizer; expected one such as 'adam'."
            )
        return built
