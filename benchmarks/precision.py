"""Measures what the precision of matrix products does to parity with the PyTorch release.

    python -m benchmarks.precision

Computes the golden numbers in tests/golden on the device of this process, for each value of
`jax_default_matmul_precision` in float32, and once in float64. Prints the relative error (norm of
the difference over the norm) of outputs, loss, and the worst array of each (meta-)gradient.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import jax
import optax

from benchmarks.meta_step import PRECISIONS
from benchmarks.output import add_json_flag, report
from dsaml_jax import DSAML
from dsaml_jax.meta import InnerLoop, MetaParams, Task, Unrolled
from dsaml_jax.model.objective import dsaml_loss, dsaml_problem
from tests.golden_numbers import SETS, Golden, relative_error, to_release

EXACT_STEPS = {"first_order": 0, "second_order": None}
ZERO_GRADIENTS = ("key.bias", "0.conv.bias", "1.conv.bias")
"""Their gradients are zero but for rounding, so that they have no relative error."""


def errors(golden: Golden) -> dict[str, float]:
    """Returns {quantity: its relative error}."""
    config, params = golden.config("batch"), golden.variables("batch")["params"]
    support, query = golden.batch("support", {}), golden.batch("query", {})
    output = jax.jit(DSAML(config).apply)({"params": params}, query.log_mel, query.embedding)
    outputs = [output.curve[..., i] for i in range(2)]
    expected = [golden.arrays[f"train/{name}"] for name in ("arousal", "valence")]
    loss = jax.jit(jax.value_and_grad(dsaml_loss(config, train=True), has_aux=True))
    (value, _), gradients = loss(params, query, jax.random.key(0))
    result = {
        "outputs": max(map(relative_error, outputs, expected)),
        "loss": relative_error(value, golden.arrays["loss"]),
        "gradient": worst(golden, gradients, "grad"),
    }
    inner = InnerLoop(golden.json["inner_steps"], optax.sgd(golden.json["inner_lr"]))
    for name, exact_steps in EXACT_STEPS.items():
        estimate = functools.partial(
            Unrolled(exact_steps=exact_steps), dsaml_problem(config, train=True), inner
        )
        _, gradient = jax.jit(estimate)(
            MetaParams(params, {}), Task(support, query), jax.random.key(0)
        )
        result[f"{name} meta-gradient"] = worst(golden, gradient.params, name)
    return result


def worst(golden: Golden, gradients, prefix: str) -> float:
    """Returns the largest relative error of an array of a gradient."""
    arrays = to_release(gradients, golden.config("batch"))
    return max(
        relative_error(value, golden.arrays[f"{prefix}/{name}"])
        for name, value in arrays.items()
        if not name.endswith(ZERO_GRADIENTS)
    )


def measure() -> dict[str, Any]:
    """Returns {"device", "float32 default" ...: {quantity: largest error of all golden sets}}."""
    result: dict[str, Any] = {"device": jax.devices()[0].device_kind}
    cases = [("float32", precision) for precision in PRECISIONS] + [("float64", "highest")]
    for dtype, precision in cases:
        with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision(precision):
            errors_by_set = [errors(Golden(stem, dtype)) for stem in SETS]
        result[f"{dtype} {precision}"] = {
            name: max(one[name] for one in errors_by_set) for name in errors_by_set[0]
        }
        print(f"{dtype} {precision}: {result[f'{dtype} {precision}']}", flush=True)
    return result


def main() -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_json_flag(flags)
    args = flags.parse_args()
    report(measure(), args.json)


if __name__ == "__main__":
    main()
