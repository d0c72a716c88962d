"""Schedules: quantities that depend on the progress of meta-training, in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from dsaml_jax.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def multi_step_weights(
    progress: Float[Array, ""] | float, steps: int, horizon: float
) -> Float[Array, " steps"]:
    """Returns the weights of the query losses after inner steps 1 to K (MAML++, Antoniou 2019).

    Initially all weights are 1/K. Those of all steps but the last decrease linearly and reach 0 at
    progress = horizon > 0; the weight of the last step makes the sum 1.
    """
    early = jnp.full(steps - 1, jnp.maximum(1.0 - progress / horizon, 0.0) / steps)
    return jnp.append(early, 1.0 - early.sum())


def in_unit_interval(field: str, value: float) -> None:
    """Raises UserError unless a share of meta-training is in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{field} is {value}; expected a share of meta-training, from 0 to 1.")
