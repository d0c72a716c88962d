"""The likelihood of a rating given an expected curve: an inner loss that only infers.

A listener's rating differs from the expected curve by an error of its level, which is the same in
the whole clip, and an error of its movement, which is correlated in time. The error e_t of one
dimension over S segments has the mean m, the movement c_t = e_t - m, and the innovations
w_t = c_t - r c_(t-1). Its negative log-likelihood, without constants, is

    1/2 [l m² - log l] + 1/2 n/(S - 1) Σ_t [p w_t² - log p]

with the precisions l of the level and p of the innovations, the autocorrelation r, and the count n
of independent values that the S - 1 innovations are worth: all positive, r in (0, 1), and learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.losses import valid_weight

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

_LEVEL_SD, _MOVEMENT_SD = 0.24, 0.07
"""Initial standard deviations of the level and of the innovations, of ratings in [-1, 1]."""

_COUNT, _CORRELATION = 24.0, 0.7
"""Initial count and autocorrelation. The count is below S - 1 = 59: the errors of a model of the
sound are more alike in time than an autoregression of the first order says."""


class Noise(NamedTuple):
    """The parameters of the likelihood, each [2] for (arousal, valence).

    Attributes:
      log_level: log l.
      log_movement: log p.
      log_count: log n.
      correlation: logit of r.
    """

    log_level: Float[Array, " dimensions"]
    log_movement: Float[Array, " dimensions"]
    log_count: Float[Array, " dimensions"]
    correlation: Float[Array, " dimensions"]


class Likelihood(nn.Module):
    """Holds the learned parameters of the likelihood."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self) -> Noise:
        """Returns the parameters."""
        initial = {
            "log_level": -2 * jnp.log(_LEVEL_SD),
            "log_movement": -2 * jnp.log(_MOVEMENT_SD),
            "log_count": jnp.log(_COUNT),
            "correlation": jnp.log(_CORRELATION / (1 - _CORRELATION)),
        }
        dtype = jnp.dtype(self.config.param_dtype)
        return Noise(
            **{
                name: self.param(name, nn.initializers.constant(value), (2,), dtype)
                for name, value in initial.items()
            }
        )


class Whitened(NamedTuple):
    """A curve as its mean and its innovations over the valid segments.

    Attributes:
      level: [..., K].
      innovations: [..., S - 1, K]; 0 unless both segments are valid.
    """

    level: Float[Array, "*batch values"]
    innovations: Float[Array, "*batch steps values"]


def whiten(
    x: Float[Array, "*batch segments values"],
    valid: Bool[Array, "*batch segments"] | Bool[Array, "*batch segments values"],
    correlation: Float[Array, "#values"],
) -> Whitened:
    """Computes the level and the innovations w_t = c_t - r c_(t-1) of K curves.

    Linear in x, so that it applies to what a curve is a linear combination of, too.

    Args:
      x: [..., S, K].
      valid: [..., S], the same for all curves, or [..., S, K].
      correlation: r, [K] or [1].
    """
    weight = valid_weight(valid, x)
    level = (weight * x).sum(-2) / jnp.maximum(weight.sum(-2), 1)
    movement = x - level[..., None, :]
    pairs = weight[..., 1:, :] * weight[..., :-1, :]
    return Whitened(level, pairs * (movement[..., 1:, :] - correlation * movement[..., :-1, :]))


def negative_log_likelihood(
    noise: Noise,
    error: Float[Array, "clips segments 2"],
    valid: Bool[Array, "clips segments"] | Bool[Array, "clips segments 2"],
) -> Float[Array, " clips"]:
    """Computes the negative log-likelihood of each clip, summed over the dimensions; 0 if unrated.

    Args:
      noise: the parameters.
      error: rating minus expected curve.
      valid: where there is a rating, of both dimensions or of each.
    """
    whitened = whiten(error, valid, jax.nn.sigmoid(noise.correlation))
    squares = whitened.level**2, (whitened.innovations**2).sum(-2)
    return log_likelihood_terms(noise, *squares, valid).sum(-1)


def log_likelihood_terms(
    noise: Noise,
    level: Float[Array, "*batch 2"],
    innovations: Float[Array, "*batch 2"],
    valid: Bool[Array, "*batch segments"] | Bool[Array, "*batch segments 2"],
) -> Float[Array, "*batch 2"]:
    """Computes the negative log-likelihood by dimension from (expected) squares.

    Args:
      noise: the parameters.
      level: m².
      innovations: Σ_t w_t².
      valid: where there is a rating, of both dimensions or of each.
    """
    if valid.ndim == level.ndim:
        valid = valid[..., None]
    rated = valid.any(-2)
    pairs = (valid[..., 1:, :] & valid[..., :-1, :]).sum(-2)
    share = jnp.exp(noise.log_count) / max(valid.shape[-2] - 1, 1)
    of_level = jnp.exp(noise.log_level) * level - noise.log_level
    of_movement = jnp.exp(noise.log_movement) * innovations - pairs * noise.log_movement
    return rated * (of_level + share * of_movement) / 2
