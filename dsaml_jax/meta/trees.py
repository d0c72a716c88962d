"""Trees of arrays: leaves that can be differentiated, and the others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError


def as_arrays(tree: Any, name: str) -> Any:
    """Returns the tree with arrays in place of Python and NumPy numbers.

    Args:
      tree: any pytree.
      name: what the tree is, for the message.

    Raises:
      UserError: a leaf is neither an array nor a number.
    """

    def convert(path, leaf):
        try:
            return jnp.asarray(leaf)
        except (TypeError, ValueError) as error:
            at = leaf_path(path)
            raise UserError(
                f"{name} holds a {type(leaf).__name__}{at and ' at '}{at}; expected arrays and "
                "numbers: close over anything else."
            ) from error

    return jax.tree.map_with_path(convert, tree)


def is_floating(leaf: Any) -> bool:
    """Returns whether a leaf has derivatives: neither integer, boolean, nor a random key."""
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jnp.issubdtype(dtype, jnp.inexact)


def split_floating(tree: Any) -> tuple[Any, Any]:
    """Splits a tree into its floating-point leaves and the others, each with None elsewhere."""
    return (
        jax.tree.map(lambda leaf: leaf if is_floating(leaf) else None, tree),
        jax.tree.map(lambda leaf: None if is_floating(leaf) else leaf, tree),
    )


def at_least_float32(leaf: Any) -> jax.Array:
    """Returns a half-precision array in float32, and any other as it is."""
    return jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))


def merge(one: Any, other: Any) -> Any:
    """Returns the whole tree of two that have None where the other has a leaf."""
    return jax.tree.map(lambda a, b: b if a is None else a, one, other, is_leaf=lambda x: x is None)


def leaf_path(path: Any) -> str:
    """Returns the path of a leaf, such as "predictor/output/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
