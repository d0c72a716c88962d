"""Meta-learning problems: losses, tasks, and what an estimator returns for a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError
from dsaml_jax.meta.trees import as_arrays, leaf_path

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

Params = Any
Loss = Callable[..., Any]
Precompute = Callable[[Params, Any, jax.Array], Any]
InitState = Callable[[Params, Any, jax.Array], Any]


@dataclasses.dataclass(frozen=True)
class Problem:
    """The pure functions of a meta-learning problem.

    Attributes:
      loss: loss(params, support, key) -> scalar, which the inner loop minimizes. Where the support
        holds a `Stream`, every inner step gets the next batch of it.
      query_loss: query_loss(params, query, key) -> scalar, or (scalar, auxiliary output), evaluated
        at the adapted weights.
      precompute: precompute(frozen, support, key) -> support, called once before the loop with the
        frozen weights (None in place of adapted ones); `loss` gets what it returns. It computes
        what depends on frozen weights only, such as features of a frozen encoder, once instead of
        in every step, and draws its randomness once per task. It is differentiated.
      init_state: init_state(params, support, key) -> state, any pytree that the inner loop carries
        from step to step: statistics of batches, recurrent memory, counters. With it the losses
        take one more argument: loss(params, support, key, state) -> (scalar, state), and
        query_loss(params, query, key, state), which gets the last state. State is differentiated
        like weights.
      true_derivatives: names of functions in `loss` whose custom derivative is the derivative; see
        `symmetry`.
    """

    loss: Loss
    query_loss: Loss
    precompute: Precompute | None = None
    init_state: InitState | None = None
    true_derivatives: tuple[str, ...] = ()

    def support_loss(
        self, params: Params, batch: Any, key: PRNGKeyArray, state: Any
    ) -> tuple[Float[Array, ""], Any]:
        """Returns (support loss, next state); the state is None if the problem has none.

        Raises:
          UserError: `loss` returns something else.
        """
        if self.init_state is None:
            return _scalar("loss", self.loss(params, batch, key)), None
        returned = self.loss(params, batch, key, state)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise UserError(
                f"Problem.loss returned {_describe(returned)}; with Problem.init_state, expected "
                "(scalar, state)."
            )
        value, following = returned[0], as_arrays(returned[1], "the state")
        _check_state(state, following)
        return _scalar("loss", value), following

    def query_loss_and_auxiliary(
        self, params: Params, query: Any, key: PRNGKeyArray, state: Any
    ) -> tuple[Float[Array, ""], Any]:
        """Returns (query loss, auxiliary output or None).

        Raises:
          UserError: `query_loss` returns something else.
        """
        carried = () if self.init_state is None else (state,)
        returned = self.query_loss(params, query, key, *carried)
        if isinstance(returned, tuple) and len(returned) == 2:
            return _scalar("query_loss", returned[0]), returned[1]
        return _scalar("query_loss", returned), None


class Task(NamedTuple):
    """The data of one task; support and query are any pytrees that the losses take as a batch.

    Attributes:
      support: data to adapt to; what is wrapped in `Stream` is given step by step.
      query: data to evaluate the adapted weights on.
    """

    support: Any
    query: Any


class TaskResult(NamedTuple):
    """What an estimator returns for one task besides its meta-gradient.

    Attributes:
      query_loss: query loss at the adapted weights.
      losses: support loss before each inner step, [K].
      auxiliary: auxiliary output of the query loss; None if it has none.
      numbers: diagnostics of the estimator by name, such as the residual of a solver.
    """

    query_loss: Float[Array, ""]
    losses: Float[Array, " steps"]
    auxiliary: Any
    numbers: dict[str, Float[Array, ""]]


def _scalar(name: str, value: Any) -> jax.Array:
    """Returns `value` as an array; raises UserError unless it is a real scalar."""
    if isinstance(value, tuple | list | dict):
        hint = "; give Problem.init_state if it returns a state" if name == "loss" else ""
        raise UserError(f"Problem.{name} returned {_describe(value)}; expected a scalar{hint}.")
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(
            f"Problem.{name} returned {_describe(value)}; expected a floating-point scalar."
        )
    return value


def _check_state(state: Any, following: Any) -> None:
    """Raises UserError unless a step keeps the structure, shapes and dtypes of the state."""
    before, after = (jax.tree.structure(tree) for tree in (state, following))
    if before != after:
        raise UserError(
            f"Problem.loss returned a state of the structure {after}; expected that of "
            f"Problem.init_state, {before}."
        )
    for (path, old), new in zip(
        jax.tree.leaves_with_path(state), jax.tree.leaves(following), strict=True
    ):
        if old.shape != new.shape or old.dtype != new.dtype:
            name = " ".join(("the state", leaf_path(path))).strip()
            raise UserError(
                f"Problem.loss returned {_describe(new)} as {name}; expected {_describe(old)}, as "
                "Problem.init_state gives."
            )


def _describe(value: Any) -> str:
    if isinstance(value, jax.Array):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
