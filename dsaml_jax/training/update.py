"""What every training step ends with: an outer update, unless something is not finite."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from dsaml_jax.meta import MetaParams
from dsaml_jax.model.weights import Weights
from dsaml_jax.training.devices import replicated

Tree = TypeVar("Tree")


class Update(NamedTuple):
    """The result of an outer update.

    Attributes:
      weights: moved, or as they were.
      opt_state: of the optimizer, likewise.
      gradient_norm: global norm of the gradient.
      is_finite: whether the loss and the gradient are finite; otherwise nothing has moved.
    """

    weights: Weights
    opt_state: optax.OptState
    gradient_norm: jax.Array
    is_finite: jax.Array


def outer_update(
    optimizer: optax.GradientTransformation,
    weights: Weights,
    opt_state: optax.OptState,
    gradient: MetaParams,
    batch_stats: Any,
    loss: jax.Array,
) -> Update:
    """Moves the shared weights; a step that is not finite moves nothing.

    Args:
      optimizer: the outer optimizer.
      weights: the weights.
      opt_state: state of the optimizer.
      gradient: of the loss, in the structure of `weights.meta_params`.
      batch_stats: the updated running statistics.
      loss: of the step.
    """
    with jax.named_scope("outer_update"):
        updates, moved_state = optimizer.update(gradient, opt_state, weights.meta_params)
        moved: Any = optax.apply_updates(weights.meta_params, updates)
        norm = optax.global_norm(gradient)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        kept = keep_if(is_finite, (Weights(moved, batch_stats), moved_state), (weights, opt_state))
    return Update(*kept, norm, is_finite)


def keep_if(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """Returns `new` where the condition, a scalar, holds, and `old` elsewhere."""
    return jax.tree.map(functools.partial(jnp.where, condition), new, old)


def compile_step(step: Callable[..., Any], mesh: Mesh) -> Any:
    """Compiles step(state, tables, key), written as what EACH device computes; donates the state.

    Arguments and results are replicated (`devices.replicate` copies arguments once; others are
    copied at every call). `check_vma` is off so that gradients stay local to a device: an
    all-reduce inserted by `grad` for weights that are replicated would mix annotators.
    """
    everywhere = PartitionSpec()
    per_device = jax.shard_map(
        step, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )
    sharding = replicated(mesh)
    return jax.jit(per_device, donate_argnums=0, in_shardings=sharding, out_shardings=sharding)
