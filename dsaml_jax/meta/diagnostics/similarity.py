"""How meta-gradients compare: norm and direction, of all weights and by module."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

ALL = "all"


def modules(tree: Any) -> dict[str, list[jax.Array]]:
    """The leaves below each top-level name, and of the whole tree under "all"."""
    found: dict[str, list[jax.Array]] = {ALL: []}
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = jax.tree_util.keystr(path[:1], simple=True)
        found[ALL].append(leaf)
        if name:
            found.setdefault(name, []).append(leaf)
    return found


def dots(x: Any, y: Any) -> dict[str, jax.Array]:
    """<x, y> by module."""
    ours, theirs = modules(x), modules(y)
    return {
        name: sum(jnp.vdot(a, b) for a, b in zip(ours[name], theirs[name], strict=True))
        for name in ours
    }


def norms(x: Any) -> dict[str, jax.Array]:
    """|x| by module."""
    return {name: jnp.sqrt(square) for name, square in dots(x, x).items()}


def cosines(x: Any, y: Any) -> dict[str, jax.Array]:
    """<x, y> / (|x| |y|) by module; NaN where one of them is zero."""
    size_x, size_y = norms(x), norms(y)
    return {name: dot / (size_x[name] * size_y[name]) for name, dot in dots(x, y).items()}


def second_order_share(exact: Any, first: Any) -> dict[str, jax.Array]:
    """|exact - first| / |exact| by module: what first order leaves out."""
    missing = norms(jax.tree.map(jnp.subtract, exact, first))
    whole = norms(exact)
    return {name: missing[name] / whole[name] for name in whole}
