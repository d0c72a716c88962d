"""The training objective of DSAML, as a loss and as a meta-learning problem."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from dsaml_jax.meta import InnerLoop, Problem
from dsaml_jax.meta.subset import is_whole, partition
from dsaml_jax.model.activations import gelu, standardize
from dsaml_jax.model.batch import Batch, Encoded
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.dsaml import DSAML, ENCODER
from dsaml_jax.model.likelihood import Noise, negative_log_likelihood
from dsaml_jax.model.losses import Agreement, agreement, attention_loss, score
from dsaml_jax.model.lstm import lstm

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

__all__ = [
    "Agreement",
    "Batch",
    "Encoded",
    "LossAux",
    "agreement",
    "attention_loss",
    "dsaml_loss",
    "dsaml_problem",
    "encode",
    "encoder_is_frozen",
    "score",
    "support_loss",
]


_TRUE_DERIVATIVES = tuple(function.__name__ for function in (gelu, lstm, standardize))
"""Functions of the model whose custom derivative is faster, and the same as theirs."""


class LossAux(NamedTuple):
    """The auxiliary output of the loss.

    Attributes:
      score: mean of {CCC, PCC, 1 - RMSE}, see `losses.score`.
      batch_stats: updated running statistics.
    """

    score: Float[Array, ""]
    batch_stats: Any


def dsaml_loss(
    config: DSAMLConfig, *, train: bool
) -> Callable[[Any, Batch, jax.Array], tuple[jax.Array, LossAux]]:
    """Returns the pure function loss(params, batch, key) -> (1 - score + attention loss, LossAux).

    The score is that of the curve that the model predicts, after the decision layer if it has one.

    Args:
      config: the model.
      train: apply dropout (with `key`), and normalize with batch statistics while updating the
        running ones, if they are tracked.
    """
    return functools.partial(_score_loss, config, train, "predict")


def support_loss(
    config: DSAMLConfig, *, train: bool
) -> Callable[[Any, Batch, jax.Array], jax.Array]:
    """Returns the pure function loss(params, batch, key) -> scalar that the inner loop minimizes.

    It compares the curves before the decision layer: with `support_loss` = "score" by the loss of
    `dsaml_loss`, with "likelihood" by the sum over clips of their negative log-likelihood, so that
    more songs tell more, and without attention loss.
    """
    if config.support_loss == "score":
        return lambda *arguments: _score_loss(config, train, "expect", *arguments)[0]

    def loss(params: Any, batch: Batch, key: PRNGKeyArray) -> jax.Array:
        curve, _ = _curve(config, train, "expect", params, batch, key)
        noise = Noise(**params["likelihood"])
        return negative_log_likelihood(noise, batch.curve - curve, batch.valid).sum()

    return loss


def dsaml_problem(config: DSAMLConfig, *, train: bool) -> Problem:
    """Returns `support_loss` and `dsaml_loss` as a meta-learning problem.

    If the inner loop freezes the whole encoder (ANIL, Raghu et al. 2020), the support is encoded
    once before the loop; the encoder's dropout is then drawn once per task.
    """

    def precompute(frozen: Any, batch: Batch, key: PRNGKeyArray) -> Batch:
        if batch.encoded is not None or not _has_encoder(frozen):
            return batch
        return batch._replace(
            log_mel=None,
            embedding=None,
            encoded=encode(config, frozen, batch, key, train=train),
        )

    return Problem(
        support_loss(config, train=train),
        dsaml_loss(config, train=train),
        precompute,
        true_derivatives=_TRUE_DERIVATIVES,
    )


def _score_loss(
    config: DSAMLConfig, train: bool, method: str, params: Any, batch: Batch, key: PRNGKeyArray
) -> tuple[jax.Array, LossAux]:
    curve, encoded = _curve(config, train, method, params, batch, key)
    value = score(agreement(curve, batch.curve, batch.valid), _clip_weight(batch))
    return 1.0 - value + encoded.attention_loss, LossAux(value, encoded.batch_stats)


def _curve(
    config: DSAMLConfig, train: bool, method: str, params: Any, batch: Batch, key: PRNGKeyArray
) -> tuple[jax.Array, Encoded]:
    """Returns the curves of a method of `DSAML`, and the encoder's output."""
    encoded = batch.encoded
    if encoded is None:
        encoded = encode(config, params, batch, key, train=train)
    curve, _ = DSAML(config).apply(
        {"params": params},
        encoded.features,
        train,
        rngs={"dropout": key},
        mutable=[],
        method=method,
    )
    return curve, encoded


def encoder_is_frozen(loop: InnerLoop, params: Any) -> bool:
    """Returns whether the inner loop freezes the whole encoder."""
    return _has_encoder(partition(params, loop.adapt)[1])


def encode(
    config: DSAMLConfig, params: Any, batch: Batch, key: PRNGKeyArray, *, train: bool
) -> Encoded:
    """Runs the encoder on a batch; `params` must contain the encoder's weights only."""
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


def _has_encoder(frozen: Any) -> bool:
    return is_whole([frozen[name] for name in ENCODER])


def _clip_weight(batch: Batch) -> Float[Array, " clips"]:
    """Returns 1 for clips with a rating and 0 for clips without any, [N]."""
    rated = batch.valid.any(tuple(range(1, batch.valid.ndim)))
    return rated.astype(batch.curve.dtype)
