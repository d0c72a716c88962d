"""What changes over meta-training, as a function of its progress in [0, 1]."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def multi_step_weights(progress: jax.Array, steps: int, horizon: float) -> jax.Array:
    """Weights [K] of the query loss after inner steps 1 to K (MAML++, Antoniou et al. 2019).

    All are 1/K at the start; those of the steps before the last fall linearly to 0 at
    progress = horizon, and the last takes what they lose. `horizon` > 0.
    """
    early = jnp.full(steps - 1, jnp.maximum(1.0 - progress / horizon, 0.0) / steps)
    return jnp.append(early, 1.0 - early.sum())
