"""Inner optimizers whose updates can be differentiated where a gradient is exactly zero."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import eval_jaxpr
from jax.extend.core import Jaxpr, Var

from dsaml_jax.errors import UserError
from dsaml_jax.meta.trees import at_least_float32, is_floating

SINGULAR = ("div", "sqrt", "rsqrt", "cbrt", "pow", "integer_pow", "log", "log1p", "atan2")
"""Operations on numbers that have points where the value, or its derivative, is not finite."""
DECOMPOSITIONS = ("svd", "eigh", "eig", "schur", "qr", "geqrf", "householder_product", "lu")
"""Operations on matrices whose derivative is not finite for some matrices, such as 0."""


def safe(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns the same optimizer with finite derivatives, and with moments in float32 or wider.

    Optimizers that divide by a norm or by the root of a second moment have updates such as
    m / (√v + ε), with d√v/dg = ∞ · 0 = NaN at v = 0, or g / |g|. Then a meta-gradient is NaN for
    every weight as soon as one weight has no gradient (a dead unit, an unused row), or a task has
    none (it is solved). Here every root, power, logarithm and quotient in the update counts as a
    constant where its derivative is not finite, and as 0 where it is undefined (0 / 0, √-1);
    elsewhere values and derivatives are those of `optimizer`.

    Derivatives are large, up to 1 / ε, where 0 < |g| << ε: prefer an ε of 1e-5 to 1e-3 for an inner
    Adam. Half-precision gradients and weights are given to `optimizer` as float32, since 1 - 0.999
    is 0 in bfloat16; updates have the dtype of the gradients.

    Raises (from `update`):
      UserError: the update decomposes a matrix (GaLore, SOAP), whose derivative is not covered.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> optax.OptState:
        return optimizer.init(_widened(params))

    def update(updates, state, params=None, **extra_args):
        functions = {name: arg for name, arg in extra_args.items() if callable(arg)}
        arrays = {name: arg for name, arg in extra_args.items() if not callable(arg)}

        def plain(updates, state, params, arrays):
            return optimizer.update(updates, state, params, **functions, **arrays)

        moves, state = with_finite_derivatives(plain)(
            _widened(updates), state, _widened(params), _widened(arrays)
        )
        return jax.tree.map(lambda move, g: move.astype(g.dtype), moves, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def safe_adam(
    learning_rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Returns Adam (Kingma & Ba 2015) with finite derivatives: `safe(optax.adam(...))`."""
    return safe(optax.adam(learning_rate, b1, b2, eps))


def with_finite_derivatives(function: Callable) -> Callable:
    """Returns a function of arrays with the derivatives that `safe` describes."""

    def evaluate(*arguments):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return evaluate


def _evaluate(jaxpr: Any, consts: list[Any], arguments: list[Any]) -> list[Any]:
    """Evaluates a program with `_finite` in place of the singular operations."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atoms):
        return [atom.val if hasattr(atom, "val") else values[atom] for atom in atoms]

    for equation in jaxpr.eqns:
        outputs = _apply(equation, read(equation.invars))
        values.update(zip(equation.outvars, outputs, strict=True))
    return read(jaxpr.outvars)


def _apply(equation: Any, inputs: list[Any]) -> list[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in SINGULAR and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.inexact):
        return [_finite(functools.partial(primitive.bind, **params), *inputs)]
    if primitive.name in ("jit", "pjit", "closed_call", "remat2", "checkpoint"):
        inner = params["jaxpr"]
        return _evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", []), inputs)
    if primitive.name == "cond":
        branches = [_function(branch) for branch in params["branches"]]
        return jax.lax.switch(inputs[0], branches, *inputs[1:])
    if primitive.name == "scan":
        consts, carried = params["num_consts"], params["num_carry"]
        body = _function(params["jaxpr"])

        def step(carry, scanned):
            outputs = body(*inputs[:consts], *carry, *scanned)
            return outputs[:carried], outputs[carried:]

        carry, stacked = jax.lax.scan(
            step,
            inputs[consts : consts + carried],
            inputs[consts + carried :],
            length=params["length"],
            reverse=params["reverse"],
        )
        return [*carry, *stacked]
    if primitive.name in DECOMPOSITIONS:
        raise UserError(
            f"the inner optimizer contains the matrix decomposition {primitive.name!r}, whose "
            "derivative `safe` cannot make finite where a gradient is zero; use another inner "
            "optimizer, or this one without `safe`."
        )
    names = [Var(atom.aval) for atom in equation.invars]
    alone = Jaxpr([], names, equation.outvars, [equation.replace(invars=names)], equation.effects)
    return eval_jaxpr(alone, [], *inputs)


def _function(closed: Any) -> Callable:
    return lambda *arguments: _evaluate(closed.jaxpr, closed.consts, list(arguments))


def _finite(operation: Callable, *operands: jax.Array) -> jax.Array:
    """Applies an elementwise operation whose derivatives are 0 where they are not finite."""

    @jax.custom_jvp
    def apply(*operands):
        value = operation(*operands)
        undefined = jnp.isnan(value)
        for operand in operands:
            undefined &= jnp.isfinite(operand)
        return jnp.where(undefined, jnp.zeros_like(value), value)

    @apply.defjvp
    def derivative(operands, tangents):
        total = jnp.zeros_like(value := apply(*operands))
        for i, tangent in enumerate(tangents):
            if not is_floating(operands[i]):
                continue

            def along(operand, i=i):
                return operation(*operands[:i], operand, *operands[i + 1 :])

            ones = jnp.ones_like(operands[i])
            slope = jax.jvp(along, (operands[i],), (ones,))[1]
            total += jnp.where(jnp.isfinite(slope), slope, 0.0) * tangent
        return value, total

    return apply(*operands)


def _widened(tree: Any) -> Any:
    """Returns a tree with its half-precision arrays in float32."""
    return jax.tree.map(lambda x: at_least_float32(x) if is_floating(x) else x, tree)
