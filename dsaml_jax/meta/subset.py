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

Params = Any


def paths(params: Params) -> list[str]:
    """Returns the path of every leaf, such as "predictor/output/kernel"."""
    return [_path(path) for path, _ in jax.tree.leaves_with_path(params)]


def partition(params: Params, patterns: Sequence[str]) -> tuple[Params, Params]:
    """Splits `params` into (adapted, frozen), each with None where the other has a leaf.

    Args:
      params: any pytree of arrays.
      patterns: path patterns with the wildcards of `fnmatch` (* also matches "/"). A pattern that
        matches an inner node selects everything below it.

    Raises:
      UserError: a pattern matches no leaf.
    """
    known = paths(params)
    for pattern in patterns:
        if not any(_matches(path, pattern) for path in known):
            top = ", ".join(sorted({path.split("/")[0] for path in known}))
            close = difflib.get_close_matches(pattern, [*known, *_nodes(known)], n=1, cutoff=0.3)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(
                f"the pattern {pattern!r} matches none of the {len(known)} weights; "
                f"{hint}their paths start with {top}."
            )

    def pick(adapted: bool) -> Params:
        def keep(path, leaf):
            return leaf if any(_matches(_path(path), p) for p in patterns) == adapted else None

        return jax.tree.map_with_path(keep, params)

    return pick(True), pick(False)


def merge(adapted: Params, frozen: Params) -> Params:
    """Returns the whole tree, the inverse of `partition`."""
    return jax.tree.map(
        lambda a, f: f if a is None else a, adapted, frozen, is_leaf=lambda x: x is None
    )


def is_whole(tree: Params) -> bool:
    """Returns whether a subset contains all leaves of its tree."""
    return all(leaf is not None for leaf in jax.tree.leaves(tree, is_leaf=lambda x: x is None))


def _path(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def _nodes(known: Sequence[str]) -> set[str]:
    """Returns the paths of all inner nodes."""
    return {path[:i] for path in known for i, letter in enumerate(path) if letter == "/"}
