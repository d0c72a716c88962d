"""What training carries from step to step: a pytree, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.meta import InnerLoop, MetaParams
from dsaml_jax.model import DSAMLConfig, initialize


class TrainState(NamedTuple):
    """Attributes:
    step: meta-steps taken, int32 scalar.
    params: the shared weights θ.
    rates: learned inner rates; {} where they are fixed.
    batch_stats: running statistics of the normalization; {} where none are tracked.
    outer: state of the outer optimizer of (params, rates).
    skipped: meta-steps, of those taken, that moved nothing: loss or gradient was not finite.
    """

    step: jax.Array
    params: Any
    rates: Any
    batch_stats: Any
    outer: optax.OptState
    skipped: jax.Array

    @property
    def meta_params(self) -> MetaParams:
        """The meta-parameters, which the outer optimizer moves."""
        return MetaParams(self.params, self.rates)


def initial_state(
    config: DSAMLConfig,
    inner: InnerLoop,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image: tuple[int, int],
    embedding_dim: int,
) -> TrainState:
    """Fresh weights for images of T x F and embeddings of G values."""
    variables = initialize(config, key, image, embedding_dim)
    return restart(variables["params"], variables.get("batch_stats", {}), inner, optimizer)


def restart(
    params: Any, batch_stats: Any, inner: InnerLoop, optimizer: optax.GradientTransformation
) -> TrainState:
    """Step 0 with copies of given weights (training donates its own) and a fresh optimizer."""
    params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
    meta_params = MetaParams(params, inner.initial_rates(params))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, *meta_params, batch_stats, optimizer.init(meta_params), jnp.copy(zero))
