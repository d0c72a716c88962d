"""What is optimized: concordance, correlation and error of a curve, and the attention loss.

Source: Zhang et al., AAAI 2025, and its released code. Everything here is differentiable, also
where a curve is flat or meets its target; `evaluation.metrics` is its float64 counterpart that
reports, not hides, what is undefined.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.meta import InnerLoop, Problem
from dsaml_jax.meta.subset import is_whole, partition
from dsaml_jax.model import DSAML, ENCODER, DSAMLConfig

LOCAL_DIAGONAL = 0.9
GLOBAL_DIAGONAL = 0.1
"""What the diagonals of the last layer's maps are drawn to: sharp locally, spread out globally."""


class Agreement(NamedTuple):
    """How a predicted curve agrees with a rated one; each [..., 2], one value a dimension."""

    ccc: jax.Array
    pcc: jax.Array
    rmse: jax.Array


def agreement(prediction: jax.Array, target: jax.Array, valid: jax.Array) -> Agreement:
    """Agreement of curves [..., S, 2] over the segments where `valid` [..., S] holds.

    With population moments over those segments,
      CCC = 2 cov(p, t) / (var p + var t + (mean p - mean t)^2)       (Lin 1989)
      PCC = cov(p, t) / (sd p · sd t + 1e-8 / S)                      (the release's epsilon)
      RMSE = sqrt(mean (p - t)^2)
    Where both curves are flat and equal CCC is 0/0: it counts as 0, with gradient zero.
    """
    weight = valid.astype(prediction.dtype)[..., None]
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


def score(each: Agreement, weight: jax.Array) -> jax.Array:
    """Mean of {CCC, PCC, 1 - RMSE} over clips (weighted by `weight` [N]) and both dimensions."""
    per_clip = (each.ccc + each.pcc + 1.0 - each.rmse).mean(-1) / 3.0
    return (weight * per_clip).sum() / jnp.maximum(weight.sum(), 1.0)


def attention_loss(attention: jax.Array, config: DSAMLConfig, weight: jax.Array) -> jax.Array:
    """Draws the diagonals of the last layer's maps, averaged over heads and clips, to 0.9 and 0.1.

    MSE(diagonal of the local map, 0.9) + MSE(diagonal of the global map, 0.1); a pass that is
    switched off adds nothing. `attention` is [P, layers, N, heads, S, S], `weight` [N].
    """
    targets = [LOCAL_DIAGONAL] * config.local_attention + [
        GLOBAL_DIAGONAL
    ] * config.global_attention
    if not targets:
        return jnp.zeros((), attention.dtype)
    diagonal_PNS = jnp.diagonal(attention[:, -1], axis1=-2, axis2=-1).mean(2)
    weight = weight.astype(attention.dtype) / jnp.maximum(weight.sum(), 1.0)
    diagonal_PS = (weight[:, None] * diagonal_PNS).sum(1)
    return jnp.square(diagonal_PS - jnp.array(targets)[:, None]).mean(1).sum()


class Encoded(NamedTuple):
    """What the encoder makes of N clips, for a loss of the head alone.

    Attributes:
      features: [N, S, D].
      attention_loss: scalar.
      batch_stats: updated running statistics.
    """

    features: jax.Array
    attention_loss: jax.Array
    batch_stats: Any


class Batch(NamedTuple):
    """N rated clips of S segments, and what else a loss needs that is not a weight.

    Attributes:
      log_mel: [N, S, T, F], natural log of mel power.
      embedding: [N, G], global embedding of the clip's song.
      curve: [N, S, 2], the ratings, (arousal, valence) in [-1, 1].
      valid: [N, S] bool, where there is a rating; a clip without any has no weight.
      batch_stats: running statistics of the normalization; {} where none are tracked.
      encoded: the encoder's output, if it is known already; the loss then runs the head only.
    """

    log_mel: jax.Array
    embedding: jax.Array
    curve: jax.Array
    valid: jax.Array
    batch_stats: Any
    encoded: Encoded | None = None


class LossAux(NamedTuple):
    """What a loss tells besides its value: the score, and updated running statistics."""

    score: jax.Array
    batch_stats: Any


def dsaml_loss(config: DSAMLConfig, *, train: bool):
    """loss(params, batch, key) -> (1 - score + attention loss, Report); pure.

    `train` turns dropout on (with `key`), and running statistics, where there are any, into batch
    statistics that are tracked.
    """

    def loss(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, LossAux]:
        encoded = batch.encoded
        if encoded is None:
            encoded = encode(config, params, batch, key, train=train)
        curve = DSAML(config).apply(
            {"params": params}, encoded.features, train, rngs={"dropout": key}, method="predict"
        )
        value = score(agreement(curve, batch.curve, batch.valid), _clip_weight(batch))
        return 1.0 - value + encoded.attention_loss, LossAux(value, encoded.batch_stats)

    return loss


def dsaml_problem(config: DSAMLConfig, *, train: bool) -> Problem:
    """`dsaml_loss` as a meta-learning problem.

    Where the inner loop leaves the whole encoder frozen (ANIL, Raghu et al. 2020), the support is
    encoded once, before the loop; the encoder's dropout is then drawn once a task.
    """
    loss = dsaml_loss(config, train=train)

    def precompute(frozen: Any, batch: Batch, key: jax.Array) -> Batch:
        if not _has_encoder(frozen):
            return batch
        return batch._replace(
            log_mel=None,
            embedding=None,
            encoded=encode(config, frozen, batch, key, train=train),
        )

    return Problem(lambda *arguments: loss(*arguments)[0], loss, precompute)


def encoder_is_frozen(loop: InnerLoop, params: Any) -> bool:
    """Whether an inner loop leaves the whole encoder as it is."""
    return _has_encoder(partition(params, loop.adapt)[1])


def _has_encoder(frozen: Any) -> bool:
    return is_whole([frozen[name] for name in ENCODER])


def encode(
    config: DSAMLConfig, params: Any, batch: Batch, key: jax.Array, *, train: bool
) -> Encoded:
    """Runs the encoder on a batch; of `params` it needs the encoder's only."""
    (features, attention), updated = DSAML(config).apply(
        {"params": params, "batch_stats": batch.batch_stats},
        batch.log_mel,
        batch.embedding,
        train,
        rngs={"dropout": key},
        mutable=["batch_stats"],
        method="encode",
    )
    loss = attention_loss(attention, config, _clip_weight(batch))
    return Encoded(features, loss, updated.get("batch_stats", {}))


def _clip_weight(batch: Batch) -> jax.Array:
    """[N]: 1 for a clip with a rating, 0 for one without any."""
    return batch.valid.any(-1).astype(batch.curve.dtype)


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    defined = denominator > 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), 0.0)


def _root(x: jax.Array) -> jax.Array:
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
