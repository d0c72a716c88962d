"""Losses of emotion curves and attention maps.

Source: Zhang et al., AAAI 2025, and its released code. All functions are differentiable everywhere,
also where a curve is constant or equals its target. `evaluation.metrics` has float64 counterparts
that report undefined values instead of replacing them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float

LOCAL_DIAGONAL = 0.9
GLOBAL_DIAGONAL = 0.1
"""Targets of the diagonals of the last layer's maps: local attention sharp, global spread out."""


class Agreement(NamedTuple):
    """Agreement of a predicted curve with its ratings, one value per dimension, [..., 2].

    Attributes:
      ccc: concordance correlation coefficient.
      pcc: Pearson correlation coefficient.
      rmse: root mean squared error.
    """

    ccc: Float[Array, "*batch 2"]
    pcc: Float[Array, "*batch 2"]
    rmse: Float[Array, "*batch 2"]


def agreement(
    prediction: Float[Array, "*batch segments 2"],
    target: Float[Array, "*batch segments 2"],
    valid: Bool[Array, "*batch segments"] | Bool[Array, "*batch segments 2"],
) -> Agreement:
    """Computes the agreement of curves over the segments where `valid` is True.

    `valid` is that of both dimensions, or has one column for each (`valid_weight`).

    With population moments over those segments,
      CCC = 2 cov(p, t) / (var p + var t + (mean p - mean t)^2)       (Lin 1989)
      PCC = cov(p, t) / (sd p · sd t + 1e-8 / S)                      (the release's epsilon)
      RMSE = sqrt(mean (p - t)^2)
    If both curves are constant and equal, CCC is 0/0; it counts as 0, with gradient zero.
    """
    weight = valid_weight(valid, prediction)
    count = jnp.maximum(weight.sum(-2), 1.0)
    weight = weight / count[..., None, :]

    def mean(x):
        return (weight * x).sum(-2)

    mean_p, mean_t = mean(prediction), mean(target)
    centered_p, centered_t = prediction - mean_p[..., None, :], target - mean_t[..., None, :]
    var_p, var_t = mean(centered_p**2), mean(centered_t**2)
    covariance = mean(centered_p * centered_t)
    return Agreement(
        ccc=_ratio(2 * covariance, var_p + var_t + (mean_p - mean_t) ** 2),
        pcc=covariance / (_root(var_p * var_t) + 1e-8 / count),
        rmse=_root(mean((prediction - target) ** 2)),
    )


def valid_weight(valid: jax.Array, like: jax.Array) -> jax.Array:
    """Returns 1 where a curve [..., S, K] is rated and 0 elsewhere: [..., S, 1] or [..., S, K].

    Args:
      valid: [..., S], the same for all K values, or [..., S, K].
      like: the curve, whose dtype and rank count.
    """
    weight = valid.astype(like.dtype)
    return weight if valid.ndim == like.ndim else weight[..., None]


def score(agreements: Agreement, weight: Float[Array, " clips"]) -> Float[Array, ""]:
    """Computes the weighted mean over clips of the mean of {CCC, PCC, 1 - RMSE} and dimensions.

    Args:
      agreements: agreement of each clip, [N, 2].
      weight: weight of each clip, [N].
    """
    per_clip = (agreements.ccc + agreements.pcc + 1.0 - agreements.rmse).mean(-1) / 3.0
    return (weight * per_clip).sum() / jnp.maximum(weight.sum(), 1.0)


def attention_loss(
    attention: Float[Array, "passes layers clips heads segments segments"],
    config: DSAMLConfig,
    weight: Float[Array, " clips"],
) -> Float[Array, ""]:
    """Computes MSE(local diagonal, 0.9) + MSE(global diagonal, 0.1).

    The diagonals are those of the last layer's maps, averaged over heads and over clips with
    `weight`. A pass that is switched off contributes nothing.
    """
    targets = [LOCAL_DIAGONAL] * config.local_attention + [
        GLOBAL_DIAGONAL
    ] * config.global_attention
    if not targets:
        return jnp.zeros((), attention.dtype)
    diagonal_PNS = jnp.diagonal(attention[:, -1], axis1=-2, axis2=-1).mean(2)
    weight = weight.astype(attention.dtype) / jnp.maximum(weight.sum(), 1.0)
    diagonal_PS = (weight[None, :, None] * diagonal_PNS).sum(1)
    return jnp.square(diagonal_PS - jnp.array(targets)[:, None]).mean(1).sum()


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Returns numerator / denominator, or 0 with gradient zero where the denominator is 0."""
    defined = denominator > 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), 0.0)


def _root(x: jax.Array) -> jax.Array:
    """Returns √x with gradient zero where x is 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
