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

if TYPE_CHECKING:
    from jaxtyping import Array, Float

RATES = ("fixed", "per_tensor", "per_tensor_and_step", "per_weight")
"""Nothing is learned; one rate per tensor; one rate per tensor and inner step (MAML++, Antoniou et
al. 2019); one rate per weight (Meta-SGD, Li et al. 2017)."""

Rates = Any


def initial_rates(kind: str, adapted: Any, steps: int) -> Rates:
    """Returns multipliers of 1 for each adapted tensor.

    Args:
      kind: one of `RATES`.
      adapted: the adapted subset of the weights (None elsewhere).
      steps: number of inner steps, K.

    Returns:
      A tree like `adapted` whose leaves are scalars, [K], or shaped like the weights; {} if no rate
      is learned.
    """
    shapes = {
        "per_tensor": lambda leaf: (),
        "per_tensor_and_step": lambda leaf: (steps,),
        "per_weight": jnp.shape,
    }
    if kind == "fixed":
        return {}
    if kind not in shapes:
        raise ValueError(f"rates is {kind!r}; expected one of {', '.join(RATES)}.")
    return jax.tree.map(lambda leaf: jnp.ones(shapes[kind](leaf), jnp.result_type(leaf)), adapted)


def scale(kind: str, rates: Rates, updates: Any, k: jax.Array) -> Any:
    """Returns m_k ∘ u_k for inner step k."""
    if kind == "fixed":
        return updates
    if kind == "per_tensor_and_step":
        rates = jax.tree.map(lambda rate: rate[k], rates)
    return jax.tree.map(jnp.multiply, rates, updates)


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
