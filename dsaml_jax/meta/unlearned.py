"""Meta-parameters that an estimator has no gradient for."""

from __future__ import annotations

from typing import Any

import jax
from jax.extend.core import Literal

from dsaml_jax.meta.estimators.base import Estimator, meta_arrays
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Problem, Task
from dsaml_jax.meta.subset import paths
from dsaml_jax.meta.trees import split_floating


def unlearned(
    estimator: Estimator,
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    task: Task,
    progress: float = 1.0,
) -> list[str]:
    """Returns the paths of meta-parameters whose meta-gradient is 0, whatever their values.

    First-order estimates have no gradient for what enters the support loss alone (parameters of a
    learned loss, weights of examples), Reptile none for anything frozen, and implicit gradients
    none for the optimizer. Nothing is computed: a gradient that no input has an effect on is found
    in the program of the estimator. Integers and booleans are not listed.

    Args:
      estimator: the estimator.
      problem: losses.
      inner: inner loop.
      meta_params: meta-parameters.
      task: support and query of one task.
      progress: as for the estimator.
    """
    meta_params = meta_arrays(meta_params)

    def gradient(meta_params, task, key):
        _, gradient = estimator(problem, inner, meta_params, task, key, progress)
        return split_floating(gradient)[0]

    smooth, _ = split_floating(meta_params)
    closed = jax.make_jaxpr(gradient)(meta_params, task, jax.random.key(0))
    affected = _affected(closed.jaxpr, [True] * len(closed.jaxpr.invars))
    return [path for path, known in zip(paths(smooth), affected, strict=True) if not known]


def _affected(jaxpr: Any, inputs: list[bool]) -> list[bool]:
    """Returns which outputs of a program depend on inputs that are True."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atoms):
        return [not isinstance(atom, Literal) and known.get(atom, False) for atom in atoms]

    for equation in jaxpr.eqns:
        given = read(equation.invars)
        outputs = [any(given)] * len(equation.outvars)
        params = equation.params
        if equation.primitive.name in ("jit", "pjit", "remat2", "checkpoint", "closed_call"):
            outputs = _affected(getattr(params["jaxpr"], "jaxpr", params["jaxpr"]), given)
        elif equation.primitive.name == "scan":
            outputs = _affected_by_scan(params, given)
        elif equation.primitive.name == "cond":
            branches = [_affected(branch.jaxpr, given[1:]) for branch in params["branches"]]
            outputs = [any(branch) for branch in zip(*branches, strict=True)]
        known.update(zip(equation.outvars, outputs, strict=True))
    return read(jaxpr.outvars)


def _affected_by_scan(params: dict[str, Any], given: list[bool]) -> list[bool]:
    """Returns the same for the outputs of a loop, whose carry is affected by any step."""
    consts, carried = params["num_consts"], params["num_carry"]
    carry = given[consts : consts + carried]
    while True:
        inputs = [*given[:consts], *carry, *given[consts + carried :]]
        outputs = _affected(params["jaxpr"].jaxpr, inputs)
        following = [a or b for a, b in zip(carry, outputs[:carried], strict=True)]
        if following == carry:
            return [*following, *outputs[carried:]]
        carry = following
