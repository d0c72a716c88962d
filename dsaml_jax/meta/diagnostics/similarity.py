"""Similarity of meta-gradients: norms and cosines, over all weights and by module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from dsaml_jax.meta.subset import FLAX
from dsaml_jax.meta.trees import at_least_float32, leaf_path, split_floating

if TYPE_CHECKING:
    from jaxtyping import Array, Float

ALL = "all"


def modules(tree: Any) -> dict[str, list[jax.Array]]:
    """Returns the leaves below each top-level name, and all leaves under "all".

    Leaves are in float32 or wider; those without derivatives are left out. Flax's collection
    "params" is not a module: the names below it are.
    """
    leaves: dict[str, list[jax.Array]] = {ALL: []}
    for path, leaf in jax.tree.leaves_with_path(split_floating(tree)[0]):
        names = leaf_path(path).removeprefix(f"{FLAX}/").split("/")
        leaf, name = at_least_float32(leaf), names[0]
        leaves[ALL].append(leaf)
        if name:
            leaves.setdefault(name, []).append(leaf)
    return leaves


def dots(x: Any, y: Any) -> dict[str, Float[Array, ""]]:
    """Returns <x, y> by module."""
    leaves_x, leaves_y = modules(x), modules(y)
    return {
        name: jnp.asarray(
            sum(jnp.vdot(a, b) for a, b in zip(leaves_x[name], leaves_y[name], strict=True))
        )
        for name in leaves_x
    }


def norms(x: Any) -> dict[str, Float[Array, ""]]:
    """Returns |x| by module."""
    return {name: jnp.sqrt(square) for name, square in dots(x, x).items()}


def cosines(x: Any, y: Any) -> dict[str, Float[Array, ""]]:
    """Returns <x, y> / (|x| |y|) by module; NaN where x or y is zero."""
    norm_x, norm_y = norms(x), norms(y)
    return {name: dot / (norm_x[name] * norm_y[name]) for name, dot in dots(x, y).items()}


def second_order_share(exact: Any, first: Any) -> dict[str, Float[Array, ""]]:
    """Returns |exact - first| / |exact| by module, the share of second-order terms."""
    difference = norms(jax.tree.map(jnp.subtract, *(split_floating(g)[0] for g in (exact, first))))
    norm = norms(exact)
    return {name: difference[name] / norm[name] for name in norm}
