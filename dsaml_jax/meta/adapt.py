"""The inner loop: K optimiser steps from shared weights to one task's weights, differentiable.

Nothing here knows of music: a loss is any pure function `loss(params, batch, key) -> scalar`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

Params = Any
Loss = Callable[[Params, Any, jax.Array], jax.Array]

ESTIMATORS = ("first_order", "second_order")


def adapt(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    params: Params,
    batch: Any,
    key: jax.Array,
    *,
    steps: int,
    estimator: str = "second_order",
) -> tuple[Params, jax.Array]:
    """Runs θ_(k+1) = update(θ_k, g_k), g_k = ∇ loss(θ_k, batch, key_k), for k < steps.

    The update always keeps ordinary autodiff; the estimator decides how g_k is differentiated:
      "second_order": exactly, dg_k/dθ = ∇² loss(θ_k) (Finn et al. 2017). The step is rematerialised
        in the backward pass, so that only the carried weights are stored for each step.
      "first_order": g_k is a constant (FOMAML), so that dθ_K/dθ_0 is the update's own alone.

    Args:
      loss: support loss.
      optimizer: any optax transformation; its state starts afresh in every call.
      params: θ_0.
      batch: the support, passed on to `loss`.
      key: folded with the step number for each step's randomness.
      steps: K >= 0.
      estimator: one of `ESTIMATORS`.

    Returns:
      θ_K, and the support loss before each step, [K].
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is none of {ESTIMATORS}")

    def step(carry, k):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, batch, jax.random.fold_in(key, k))
        if estimator == "first_order":
            gradient = jax.lax.stop_gradient(gradient)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    if estimator == "second_order":
        step = jax.checkpoint(step, prevent_cse=False)
    start = (params, optimizer.init(params))
    (adapted, _), losses = jax.lax.scan(step, start, jax.numpy.arange(steps))
    return adapted, losses
