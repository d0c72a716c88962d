"""Custom derivatives in a loss, with which its second derivative may not be a symmetric matrix.

The mixed engine, Newton's direction and the implicit estimator compute H v in place of Hᵀ v. That
is right for the derivative of a gradient, whose H is symmetric. A function with a `custom_vjp` or
`custom_jvp` can have any rule (gradient reversal, clipping of cotangents, rounding that passes
gradients), and then it is wrong without a sign of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax

from dsaml_jax.errors import UserError

_HERE = os.path.dirname(jax.__file__) + os.sep


def check_symmetric(
    function: Callable, arguments: tuple, true_derivatives: Collection[str], what: str
) -> None:
    """Refuses a loss that contains custom derivatives, except for those that come with JAX.

    Args:
      function: the loss.
      arguments: its arguments.
      true_derivatives: names of functions whose custom derivative is known to be the derivative.
      what: what needs the symmetry, for the message.

    Raises:
      UserError: there is such a function; names it, and where it is defined.
    """
    for name, place in custom_derivatives(function, *arguments):
        if name not in true_derivatives:
            raise UserError(
                f"the loss contains {name} ({place}), whose derivative is custom, and {what} is "
                "right for true derivatives only; choose the engine 'remat' and the direction "
                f"'gradient', or, if the rule of {name} is its true derivative, set "
                f"Problem.true_derivatives to ({name!r},)."
            )


def custom_derivatives(function: Callable, *arguments: Any) -> list[tuple[str, str]]:
    """Returns (name, file and line) of the functions with custom derivatives in a function.

    Those of JAX itself, such as `jax.nn.relu`, are derivatives and left out.
    """
    found = dict.fromkeys(_search(jax.make_jaxpr(function)(*arguments).jaxpr))
    return [source for source in found if not _is_from_jax(*source)]


def _search(jaxpr: Any) -> Iterator[tuple[str, str]]:
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("custom_vjp", "custom_jvp")):
            closed = equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr"))
            source = getattr(closed.jaxpr.debug_info, "func_src_info", None) or "a function"
            name, _, place = source.partition(" at ")
            yield name, place or "of unknown place"
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _search(inner)


def _is_from_jax(name: str, place: str) -> bool:
    """Returns whether a module of JAX defines this name as a function with a custom derivative.

    It is not enough that the function is JAX's: `jax.custom_jvp(jnp.round)` has a rule of its own.
    """
    file = place.rpartition(":")[0]
    if not file.startswith(_HERE):
        return False
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == file:
            defined = getattr(module, name, None)
            while defined is not None:
                if isinstance(defined, jax.custom_jvp | jax.custom_vjp):
                    return True
                defined = getattr(defined, "__wrapped__", None)
    return False
