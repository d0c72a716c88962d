"""Inner optimizers whose gradient is zero: safe(optimizer) against the optimizer itself.

python -m tests.optimizers        # all of optax and optax.contrib, minutes
"""

import inspect
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from dsaml_jax.errors import UserError
from dsaml_jax.meta import InnerLoop, MetaParams, Problem, Task, Unrolled, safe

DECOMPOSE = ("galore", "scale_by_galore")
"""Refused: they decompose matrices."""
OTHERS = {
    "lbfgs": "its line search is a while loop, which exact meta-gradients refuse",
    "hutchinson_estimator_diag_hessian": "needs the objective as an extra argument",
    "sophia": "needs the objective as an extra argument",
    "scale_by_muon": "needs the dimensions of every weight",
}
"""Transformations of optax that cannot be inner optimizers as they are."""

STEPS = 2


def transformations() -> Iterator[tuple[str, optax.GradientTransformation]]:
    """Yields (name, transformation) of whatever optax builds from a rate, or from nothing."""
    for module in (optax, optax.contrib):
        for name in dir(module):
            function = getattr(module, name)
            if name.startswith("_") or inspect.isclass(function) or not callable(function):
                continue
            for options in ({"learning_rate": 0.1}, {}):
                try:
                    built = function(**options)
                except Exception:
                    continue
                if isinstance(built, optax.GradientTransformation):
                    yield name, built
                    break
    yield "lbfgs without line search", optax.lbfgs(0.1, linesearch=None)
    yield "clip, sgd", optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    yield "clip blocks, sgd", optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(0.1))
    yield "adaptive clip, sgd", optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1))
    yield "normalize, sgd", optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1))


def check(optimizer: optax.GradientTransformation) -> int:
    """Checks a task with an unused weight, and a solved one; returns the NaNs that `safe` removed.

    `safe` changes no finite number, and leaves no number that is not finite.
    """

    def loss(params, rows, key):
        return jnp.sum((params[rows] - 1.0) ** 2)

    def one(optimizer, start):
        inner = InnerLoop(STEPS, optimizer)
        task = Task(jnp.array([0, 1]), jnp.array([1, 2]))
        estimate = Unrolled()(Problem(loss, loss), inner, MetaParams(start, {}), task, KEY)
        return estimate[0].query_loss, estimate[1].params

    starts = jnp.stack([np.random.default_rng(0).normal(size=(4, 3)), np.ones((4, 3))])
    (plain, gradient), (value, finite) = jax.jit(
        lambda starts: [
            jax.vmap(lambda x, o=o: one(o, x))(starts) for o in (optimizer, safe(optimizer))
        ]
    )(starts)
    assert np.isfinite(value).all() and np.isfinite(finite).all()
    known = np.isfinite(plain)
    np.testing.assert_allclose(value[known], plain[known], rtol=1e-12)
    known = np.isfinite(gradient)
    np.testing.assert_allclose(finite[known], gradient[known], rtol=1e-9, atol=1e-9)
    return int((~known).sum())


KEY = jax.random.key(0)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    for name, optimizer in transformations():
        if name in OTHERS:
            print(f"{name:35} {OTHERS[name]}", flush=True)
            continue
        try:
            print(f"{name:35} NaNs removed: {check(optimizer)} of 24", flush=True)
            assert name not in DECOMPOSE
        except UserError as error:
            assert name in DECOMPOSE, error
            print(f"{name:35} {error}", flush=True)


if __name__ == "__main__":
    main()
