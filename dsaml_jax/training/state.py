"""The state that training carries from step to step: one pytree."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.meta import InnerLoop, MetaParams
from dsaml_jax.model import DSAMLConfig, initialize
from dsaml_jax.model.weights import Weights


class State(Protocol):
    """What the states of all stages have."""

    @property
    def step(self) -> jax.Array:
        """Steps taken, int32 scalar."""
        ...

    @property
    def weights(self) -> Weights:
        """What the outer optimizer moves, and the running statistics."""
        ...


class TrainState(NamedTuple):
    """State of one stage of training.

    Attributes:
      step: meta-steps taken, int32 scalar.
      weights: what the outer optimizer moves, and the running statistics.
      opt_state: state of the outer optimizer of `weights.meta_params`.
      skipped: number of meta-steps that left the weights unchanged because the loss or the
        gradient was not finite, int32 scalar.
    """

    step: jax.Array
    weights: Weights
    opt_state: optax.OptState
    skipped: jax.Array


def initial_state(
    config: DSAMLConfig,
    inner: InnerLoop,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image: tuple[int, int],
    embedding_dim: int,
) -> TrainState:
    """Returns step 0 with fresh weights for images of T x F and embeddings of G values."""
    variables = initialize(config, key, image, embedding_dim)
    return restart(variables["params"], variables.get("batch_stats", {}), inner, optimizer)


def restart(
    params: Any, batch_stats: Any, inner: InnerLoop, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns step 0 with copies of the given weights and a fresh optimizer.

    They are copies because the training step donates its state.
    """
    params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
    meta_params = MetaParams(params, inner.initial_rates(params))
    zero = jnp.zeros((), jnp.int32)
    weights = Weights(meta_params, batch_stats)
    return TrainState(zero, weights, optimizer.init(meta_params), jnp.copy(zero))
