"""What training carries from step to step: a pytree, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsaml_jax.meta import InnerLoop, Learner
from dsaml_jax.model import DSAMLConfig, initialize


class TrainState(NamedTuple):
    """Attributes:
    step: meta-steps taken, int32 scalar.
    params: the shared weights θ.
    rates: learned inner rates; {} where they are fixed.
    statistics: running statistics of the normalisation; {} where none are tracked.
    outer: state of the outer optimiser of (params, rates).
    skipped: meta-steps, of those taken, that moved nothing: loss or gradient was not finite.
    """

    step: jax.Array
    params: Any
    rates: Any
    statistics: Any
    outer: optax.OptState
    skipped: jax.Array

    @property
    def learner(self) -> Learner:
        """The meta-parameters, which the outer optimiser moves."""
        return Learner(self.params, self.rates)


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
    return restart(variables["params"], variables.get("statistics", {}), inner, optimizer)


def restart(
    params: Any, statistics: Any, inner: InnerLoop, optimizer: optax.GradientTransformation
) -> TrainState:
    """Step 0 with copies of given weights (training donates its own) and a fresh optimiser."""
    params, statistics = jax.tree.map(jnp.copy, (params, statistics))
    learner = Learner(params, inner.initial_rates(params))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, *learner, statistics, optimizer.init(learner), jnp.copy(zero))
