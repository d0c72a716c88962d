"""Subsets of the weights, selected by path patterns: adapted weights and frozen weights.

A subset is the whole tree with None in place of the other weights. JAX and optax treat None as an
empty subtree, so gradients and optimizer states of a subset have no entries for the rest.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any

import jax

from dsaml_jax.errors import UserError
from dsaml_jax.meta.trees import is_floating, leaf_path, merge

__all__ = ["FLAX", "is_whole", "merge", "partition", "paths"]

Params = Any

FLAX = "params"
"""Flax keeps the weights of a model below this name; patterns may leave it out."""


def paths(params: Params) -> list[str]:
    """Returns the path of every leaf, such as "predictor/output/kernel"."""
    return [leaf_path(path) for path, _ in jax.tree.leaves_with_path(params)]


def partition(params: Params, patterns: Sequence[str]) -> tuple[Params, Params]:
    """Splits `params` into (adapted, frozen), each with None where the other has a leaf.

    Integers, booleans and random keys are frozen, whatever the patterns say.

    Args:
      params: any pytree of arrays.
      patterns: paths, or patterns with the wildcards of `fnmatch` (* also matches "/"). A pattern
        that matches an inner node selects everything below it.

    Raises:
      UserError: a pattern matches no leaf that could be adapted.
    """
    leaves = {leaf_path(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
    for pattern in patterns:
        matched = [leaf for path, leaf in leaves.items() if _matches(path, pattern)]
        if not matched:
            top = ", ".join(sorted({path.split("/")[0] for path in leaves}))
            close = difflib.get_close_matches(
                pattern, [*leaves, *_nodes(list(leaves))], n=1, cutoff=0.3
            )
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(
                f"the pattern {pattern!r} matches none of the {len(leaves)} weights; "
                f"{hint}their paths start with {top}."
            )
        if not any(map(is_floating, matched)):
            raise UserError(
                f"the pattern {pattern!r} matches only leaves that cannot be adapted, of type "
                f"{matched[0].dtype}; expected floating-point weights."
            )

    def pick(adapted: bool) -> Params:
        def keep(path, leaf):
            chosen = is_floating(leaf) and any(_matches(leaf_path(path), p) for p in patterns)
            return leaf if chosen == adapted else None

        return jax.tree.map_with_path(keep, params)

    return pick(True), pick(False)


def is_whole(tree: Params) -> bool:
    """Returns whether a subset contains all leaves of its tree."""
    return all(leaf is not None for leaf in jax.tree.leaves(tree, is_leaf=lambda x: x is None))


def _matches(path: str, pattern: str) -> bool:
    """Returns whether a pattern selects a path, or a node above it, or is that path literally."""
    below = path.removeprefix(f"{FLAX}/")
    return any(
        candidate == pattern
        or candidate.startswith(f"{pattern}/")
        or fnmatch.fnmatchcase(candidate, pattern)
        or fnmatch.fnmatchcase(candidate, f"{pattern}/*")
        for candidate in {path, below}
    )


def _nodes(known: Sequence[str]) -> set[str]:
    """Returns the paths of all inner nodes."""
    return {path[:i] for path in known for i, letter in enumerate(path) if letter == "/"}
