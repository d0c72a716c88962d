"""Gradient noise: how much meta-gradients of tasks differ, and which meta-batch size pays off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.meta.trees import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Noise(NamedTuple):
    """Signal and spread of the tasks' gradients.

    Attributes:
      signal: unbiased estimate of |G|², where G is the mean gradient over all tasks; it can be
        negative.
      spread: unbiased estimate of tr Σ, where Σ is the covariance of one task's gradient. Both are
        NaN for a single task.
    """

    signal: Float[Array, ""]
    spread: Float[Array, ""]

    @property
    def scale(self) -> Float[Array, ""]:
        """The gradient noise scale tr Σ / |G|², in tasks.

        Meta-batches much larger than this bring little: their gradient noise is already small
        compared to the signal. NaN where the signal is not positive: average signal and spread over
        more steps first, or use more than one task.
        """
        return jnp.where(self.signal > 0, self.spread / self.signal, jnp.nan)


def gradient_noise(gradients: Any) -> Noise:
    """Estimates signal and spread from the gradients of B tasks, stacked on the first axis.

    E|g|² is |G|² + tr Σ for one task and |G|² + tr Σ / B for the mean of B (McCandlish et al. 2018,
    there with two batch sizes), so
      tr Σ = B / (B - 1) (mean |g_i|² - |mean g|²),   |G|² = |mean g|² - tr Σ / B.
    """
    leaves = [at_least_float32(leaf) for leaf in jax.tree.leaves(gradients)]
    count = len(leaves[0])
    mean_square = jnp.asarray(sum(jnp.sum(leaf**2) for leaf in leaves)) / count
    square_mean = jnp.asarray(sum(jnp.sum(leaf.mean(0) ** 2) for leaf in leaves))
    spread = (count / (count - 1) if count > 1 else jnp.nan) * (mean_square - square_mean)
    return Noise(square_mean - spread / count, spread)
