"""What training carries from step to step: a pytree, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.model import DSAMLConfig, initialize


class TrainState(NamedTuple):
    """Attributes:
    step: meta-steps taken, int32 scalar.
    params: the shared weights θ.
    statistics: running statistics of the normalisation; {} where none are tracked.
    outer: state of the outer optimiser.
    """

    step: jax.Array
    params: Any
    statistics: Any
    outer: optax.OptState


def initial_state(
    config: DSAMLConfig,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image: tuple[int, int],
    embedding_dim: int,
) -> TrainState:
    """Fresh weights for images of T x F and embeddings of G values."""
    variables = initialize(config, key, image, embedding_dim)
    return restart(variables["params"], variables.get("statistics", {}), optimizer)


def restart(params: Any, statistics: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0 with copies of given weights (training donates its own) and a fresh optimiser."""
    params, statistics = jax.tree.map(jnp.copy, (params, statistics))
    return TrainState(jnp.zeros((), jnp.int32), params, statistics, optimizer.init(params))
