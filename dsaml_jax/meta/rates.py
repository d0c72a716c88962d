"""Learned inner rates: step sizes of adapted tensors, trained with the outer gradient.

The inner step is θ_(k+1) = θ_k + m_k ∘ u_k, where u_k is the update of the inner optimizer, which
includes its learning rate, and m holds the learned multipliers, initially 1. For SGD of rate α the
effective rate is m α, initially α as in the papers. The papers learn the rate itself; a multiplier
works with every optax optimizer, and an outer Adam of rate r changes it by about 100 r percent per
step, whatever α is. As in the papers, nothing keeps a multiplier positive: with a negative one the
inner loop ascends along that tensor, which can lower the outer loss; `summary` counts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Array, Float

RATES = ("fixed", "per_tensor", "per_tensor_and_step", "per_weight", "per_weight_and_step")
"""Nothing is learned; one rate per tensor; one rate per tensor and inner step (MAML++, Antoniou et
al. 2019); one rate per weight (Meta-SGD, Li et al. 2017); one rate per weight and inner step."""

Rates = Any


def initial_rates(kind: str, adapted: Any, steps: int) -> Rates:
    """Returns multipliers of 1 for each adapted tensor.

    Args:
      kind: one of `RATES`.
      adapted: the adapted subset of the weights (None elsewhere).
      steps: number of inner steps, K.

    Returns:
      A tree like `adapted` whose leaves are scalars, or shaped like the weights, with a first axis
      [K] if there is a rate for every step; {} if no rate is learned.
    """
    if kind == "fixed":
        return {}
    by_step = (steps,) if are_by_step(kind) else ()

    def ones(leaf):
        by_weight = jnp.shape(leaf) if kind.startswith("per_weight") else ()
        return jnp.ones(by_step + by_weight, jnp.result_type(leaf))

    return jax.tree.map(ones, adapted)


def check(kind: str, rates: Rates, adapted: Any, steps: int) -> None:
    """Raises UserError unless `rates` has the structure and shapes of `initial_rates`."""
    expected = initial_rates(kind, adapted, steps)
    if jax.tree.structure(rates) != jax.tree.structure(expected):
        raise UserError(
            f"inner.rates is {kind!r}, but the rates have another structure; take them from "
            "InnerLoop.initial_rates, which gives {} for fixed rates."
        )
    for rate, leaf in zip(*map(jax.tree.leaves, (rates, expected)), strict=True):
        shape = jnp.shape(rate)
        if shape == leaf.shape:
            continue
        if are_by_step(kind) and shape[1:] == leaf.shape[1:] and len(shape) == leaf.ndim:
            raise UserError(
                f"the rates are for {shape[0]} inner steps, but inner.steps is {steps}; "
                "rates.extend lengthens them."
            )
        raise UserError(
            f"inner.rates is {kind!r}, which has rates of shape {leaf.shape}, but got {shape}: "
            "they are of another kind, or of other adapted weights."
        )


def extend(rates: Rates, steps: int) -> Rates:
    """Returns rates for a longer loop: later steps have the rates of the last one.

    Args:
      rates: rates for every step, with a first axis [K].
      steps: number of inner steps of the longer loop, at least K.

    Raises:
      UserError: the rates are not for every step, or are for more than `steps`.
    """

    def lengthen(rate):
        if not jnp.ndim(rate) or rate.shape[0] > steps:
            raise UserError(
                f"a rate of shape {jnp.shape(rate)} cannot be extended to {steps} inner steps; "
                f"expected rates for every step, and for at most {steps}."
            )
        return jnp.concatenate([rate, jnp.repeat(rate[-1:], steps - rate.shape[0], axis=0)])

    return jax.tree.map(lengthen, rates)


def scale(updates: Any, rates: Rates) -> Any:
    """Returns m_k ∘ u_k for the rates of one step; the updates if rates are fixed."""
    return jax.tree.map(jnp.multiply, rates, updates) if jax.tree.leaves(rates) else updates


def summary(rates: Rates) -> dict[str, Float[Array, ""]]:
    """Returns mean, minimum and maximum multiplier and the share of negative ones; {} if fixed."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(rates)]
    if not leaves:
        return {}
    multipliers = jnp.concatenate(leaves)
    return {
        "rates_mean": multipliers.mean(),
        "rates_min": multipliers.min(),
        "rates_max": multipliers.max(),
        "rates_negative": (multipliers < 0).mean(),
    }


def are_by_step(kind: str) -> bool:
    """Returns whether every inner step has rates of its own."""
    return kind.endswith("_and_step")
