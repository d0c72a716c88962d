"""Directions of the inner step: what the inner optimizer gets in place of a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.flatten_util import ravel_pytree

from dsaml_jax.errors import UserError
from dsaml_jax.meta.engines import (
    SAVED,
    Engine,
    Evaluate,
    Evaluation,
    InnerLoss,
    mixed_gradient,
    plain_gradient,
)

DIRECTIONS = ("gradient", "newton")
"""The gradient g; H⁻¹ g with the Hessian H in the adapted weights (Newton's method)."""

NEWTON_AT_MOST = 4096
"""Largest number of adapted values for which "newton" stores and factorizes a Hessian."""


def evaluation(kind: str, loss: InnerLoss, engine: Engine | None) -> Evaluate:
    """Returns (adapted, rest, key) -> value, next state, gradient and direction.

    Args:
      kind: one of `DIRECTIONS`.
      loss: inner objective.
      engine: how all of them are differentiated in adapted and rest; None if they are constants
        for autodiff.
    """
    if kind == "newton":
        compute = newton(loss)
    elif engine is not None and engine.mixed:
        compute = mixed_gradient(loss)
    else:
        compute = plain_gradient(loss)

    def constant(adapted, rest, key):
        # Stopping the inputs as well keeps autodiff from storing residuals that nothing uses.
        adapted, rest = jax.lax.stop_gradient((adapted, rest))
        return jax.lax.stop_gradient(compute(adapted, rest, key))

    def exact(adapted, rest, key):
        at = compute(adapted, rest, key)
        return at._replace(direction=checkpoint_name(at.direction, SAVED))

    return constant if engine is None else exact


def newton(loss: InnerLoss) -> Evaluate:
    """Evaluates a loss with the direction H⁻¹ g, g and H its gradient and Hessian.

    For a loss that is quadratic in the adapted weights, x - H⁻¹ g is its minimizer from any x: the
    posterior mean of a linear head with a Gaussian likelihood and prior (ALPaCA, Harrison et al.
    2018; R2-D2, Bertinetto et al. 2019).

    H is dense and factorized by Cholesky. Where H is not positive definite, all values of the
    direction are NaN: H⁻¹ g could then lead to a saddle point or a maximum. A proximal term λ adds
    λ I to H. The derivative is that of the solution d of H d = g, which is H⁻¹ (∂g - ∂H d):
    autodiff goes through one gradient and one product H v, not through the factorization or all of
    H.
    """

    def evaluate(adapted, rest, key):
        flat, unravel = ravel_pytree(adapted)

        def with_state(flat, rest):
            return loss(unravel(flat), rest, key)

        def flat_loss(flat, rest):
            return with_state(flat, rest)[0]

        (value, state), gradient = jax.value_and_grad(with_state, has_aux=True)(flat, rest)
        hessian = jax.hessian(flat_loss)(*jax.lax.stop_gradient((flat, rest)))
        factor = jax.scipy.linalg.cho_factor(hessian)
        direction = jax.lax.custom_linear_solve(
            hessian_product(lambda flat: flat_loss(flat, rest), flat),
            gradient,
            lambda _, vector: jax.scipy.linalg.cho_solve(factor, vector),
            symmetric=True,
        )
        return Evaluation(value, state, unravel(gradient), unravel(direction))

    return evaluate


def hessian_product(loss: Callable[[Any], jax.Array], params: Any) -> Callable[[Any], Any]:
    """Returns v -> ∇² loss(params) v, computed forward over reverse."""
    return lambda v: jax.jvp(jax.grad(loss), (params,), (v,))[1]


def check_size(kind: str, adapted: Any) -> None:
    """Raises UserError if the adapted weights have too many values for their direction."""
    size = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(adapted))
    if kind == "newton" and size > NEWTON_AT_MOST:
        raise UserError(
            f"inner.direction is 'newton', which solves for all adapted values at once, but "
            f"inner.adapt selects {size}; adapt at most {NEWTON_AT_MOST}, or set inner.direction "
            "to 'gradient'."
        )
