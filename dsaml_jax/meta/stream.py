"""Streams: the parts of a support that change from one inner step to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError


class Stream(NamedTuple):
    """Marks a part of the support as a stream of K batches, one for each inner step.

    In step k the loss gets `jax.tree.map(lambda x: x[k], batches)` in its place. Other parts of the
    support are the same in all steps. `Stream(jnp.arange(K))` is the number of the step.

    Attributes:
      batches: any pytree of arrays with a leading axis K.
    """

    batches: Any


def split_streams(support: Any, steps: int) -> tuple[Any, list[Any]]:
    """Splits a support into what all steps share and its streams.

    Returns:
      The support without the batches of its streams, and these batches, in order.

    Raises:
      UserError: a stream has another number of batches than there are steps.
    """
    nodes, tree = jax.tree.flatten(support, is_leaf=_is_stream)
    streams = [node.batches for node in nodes if _is_stream(node)]
    for leaf in jax.tree.leaves(streams):
        if not jnp.ndim(leaf) or len(leaf) != steps:
            raise UserError(
                f"a Stream in the support has an array of shape {jnp.shape(leaf)}, but inner.steps "
                f"is {steps}; expected a first axis of {steps}, one batch for each inner step."
            )
    return jax.tree.unflatten(tree, [Stream(None) if _is_stream(n) else n for n in nodes]), streams


def join_streams(shared: Any, batches: list[Any]) -> Any:
    """Returns the support of one step from its batch of each stream."""
    remaining = iter(batches)
    return jax.tree.map(
        lambda node: next(remaining) if _is_stream(node) else node, shared, is_leaf=_is_stream
    )


def has_streams(support: Any) -> bool:
    """Returns whether a part of the support is a stream."""
    return any(_is_stream(node) for node in jax.tree.leaves(support, is_leaf=_is_stream))


def _is_stream(node: Any) -> bool:
    return isinstance(node, Stream)
