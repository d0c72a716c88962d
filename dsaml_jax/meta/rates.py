"""Learned inner rates: how far each adapted tensor moves, learned by the same outer gradient.

The inner step is θ_(k+1) = θ_k + m_k ∘ u_k, where u_k is the inner optimizer's update, its own rate
included, and m the learned multipliers, which start at 1. With SGD of rate α the effective rate is
m α: at the start α, as in the papers. They learn the rate itself; a multiplier serves every
optimizer of optax alike, and an outer Adam of rate r moves it by about 100 r percent a step,
whatever α is. As in the papers nothing keeps a multiplier positive: a negative one makes the inner
loop climb along that tensor, which the outer gradient may find useful; `summary` counts them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

RATES = ("fixed", "per_tensor", "per_tensor_and_step", "per_weight")
"""Nothing is learned; a rate a tensor; a rate a tensor and inner step (MAML++, Antoniou et al.
2019); a rate a weight (Meta-SGD, Li et al. 2017)."""

Rates = Any


def initial_rates(kind: str, adapted: Any, steps: int) -> Rates:
    """Multipliers of 1: a tree like `adapted` of scalars, [K] or tensors; {} where none is learned.

    Args:
      kind: one of `RATES`.
      adapted: the subset that is adapted (None elsewhere).
      steps: K.
    """
    shapes = {
        "per_tensor": lambda leaf: (),
        "per_tensor_and_step": lambda leaf: (steps,),
        "per_weight": jnp.shape,
    }
    if kind == "fixed":
        return {}
    if kind not in shapes:
        raise ValueError(f"rates {kind!r} is none of {RATES}")
    return jax.tree.map(lambda leaf: jnp.ones(shapes[kind](leaf), jnp.result_type(leaf)), adapted)


def scale(kind: str, rates: Rates, updates: Any, k: jax.Array) -> Any:
    """m_k ∘ u_k for the inner step k."""
    if kind == "fixed":
        return updates
    if kind == "per_tensor_and_step":
        rates = jax.tree.map(lambda rate: rate[k], rates)
    return jax.tree.map(jnp.multiply, rates, updates)


def summary(rates: Rates) -> dict[str, jax.Array]:
    """Mean, least and largest multiplier, and the share of negative ones; {} where none."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(rates)]
    if not leaves:
        return {}
    every = jnp.concatenate(leaves)
    return {
        "rates_mean": every.mean(),
        "rates_min": every.min(),
        "rates_max": every.max(),
        "rates_negative": (every < 0).mean(),
    }
