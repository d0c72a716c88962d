"""How much the tasks of a meta-batch disagree, and when more of them stop paying."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Noise(NamedTuple):
    """Attributes:
    signal: unbiased estimate of |G|², G the mean gradient over all tasks; can be negative.
    spread: unbiased estimate of tr Σ, Σ the covariance of one task's gradient.
    """

    signal: jax.Array
    spread: jax.Array

    @property
    def scale(self) -> jax.Array:
        """tr Σ / |G|², in tasks: a meta-batch beyond it no longer halves the noise that counts.

        NaN where the signal is not above 0: average signal and spread over more steps first.
        """
        return jnp.where(self.signal > 0, self.spread / self.signal, jnp.nan)


def gradient_noise(gradients: Any) -> Noise:
    """From the gradients of B >= 2 tasks, stacked along the first axis.

    With E|g|² = |G|² + tr Σ for one task and |G|² + tr Σ / B for the mean of B (McCandlish et al.
    2018, there with two batch sizes):
      tr Σ = B / (B - 1) (mean |g_i|² - |mean g|²),   |G|² = |mean g|² - tr Σ / B.
    """
    leaves = jax.tree.leaves(gradients)
    count = len(leaves[0])
    of_each = sum(jnp.sum(leaf**2) for leaf in leaves) / count
    of_mean = sum(jnp.sum(leaf.mean(0) ** 2) for leaf in leaves)
    spread = count / (count - 1) * (of_each - of_mean)
    return Noise(of_mean - spread / count, spread)
