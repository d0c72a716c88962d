"""Measures time and memory of exact meta-gradients by engine and number of inner steps.

    python -m benchmarks.engines [--steps 1 4 16] [--repeats 3] [--out docs/studies/engines.md]

First order is measured too. Only the ratios to naive reverse mode carry over to other machines.
"""

from __future__ import annotations

import argparse
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from dsaml_jax import DSAMLConfig
from dsaml_jax.meta import ENGINES, Engine, InnerLoop, MetaParams, Task, Unrolled
from dsaml_jax.meta.diagnostics.cost import Cost, measure
from dsaml_jax.model import initialize
from dsaml_jax.model.objective import Batch, dsaml_problem
from dsaml_jax.reports.tables import MIB

MODEL = DSAMLConfig(
    dim=128, heads=4, layers=4, feed_forward=256, lstm_dim=64, predictor_dim=64, dropout=0.0
)
TASKS, CLIPS, SEGMENTS, IMAGE = 4, 4, 60, (6, 32)


def batch(key: jax.Array) -> Batch:
    """Returns random clips for each task."""
    keys = jax.random.split(key, 3)
    return Batch(
        log_mel=jax.random.normal(keys[0], (TASKS, CLIPS, SEGMENTS, *IMAGE)),
        embedding=jax.random.normal(keys[1], (TASKS, CLIPS, MODEL.dim)),
        curve=jax.random.uniform(keys[2], (TASKS, CLIPS, SEGMENTS, 2), minval=-1.0),
        valid=jnp.ones((TASKS, CLIPS, SEGMENTS), bool),
        batch_stats={},
    )


def meta_gradient(estimator: Unrolled, steps: int):
    """Returns a function (meta-parameters, tasks, keys) -> mean meta-gradient."""
    inner = InnerLoop(steps, optax.sgd(5e-3))
    one = functools.partial(estimator, dsaml_problem(MODEL, train=True), inner)

    def mean(meta_params, tasks, keys):
        gradients = jax.vmap(one, in_axes=(None, 0, 0))(meta_params, tasks, keys)[1]
        return jax.tree.map(lambda g: g.mean(0), gradients)

    return mean


def engines(steps: int) -> dict[str, Unrolled]:
    """Returns the estimators compared; a chunk is about √K steps."""
    estimators = {name: Unrolled(engine=engine) for name, engine in ENGINES.items()}
    if steps > 2:
        chunk = round(math.sqrt(steps))
        estimators["mixed, chunked"] = Unrolled(engine=Engine(mixed=True, chunk=chunk))
    return estimators | {"first order": Unrolled(exact_steps=0)}


def table(measured: dict[int, dict[str, Cost]]) -> str:
    """Formats costs as Markdown; ratios are to reverse mode with the same K."""
    lines = [
        "| K | engine | temp MiB | ms | memory / reverse | time / reverse |",
        "|---|---|---|---|---|---|",
    ]
    for steps, by_engine in measured.items():
        reverse = by_engine["reverse"]
        for name, cost in by_engine.items():
            lines.append(
                f"| {steps} | {name} | {cost.temp_bytes / MIB:.0f} | {cost.seconds * 1e3:.0f} | "
                f"{cost.temp_bytes / reverse.temp_bytes:.3f} | "
                f"{cost.seconds / reverse.seconds:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    keys = jax.random.split(jax.random.key(0), 3)
    params = initialize(MODEL, keys[0], IMAGE, MODEL.dim)["params"]
    tasks = Task(batch(keys[1]), batch(keys[2]))
    arguments = MetaParams(params, {}), tasks, jax.random.split(keys[0], TASKS)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) * TASKS / MIB
    text = (
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}. {SEGMENTS} segments, D "
        f"{MODEL.dim}, {MODEL.layers} layers, {TASKS} tasks x {CLIPS} clips; the weights of all "
        f"tasks together are {weights:.1f} MiB per step.\n\n"
    )
    measured = {}
    for steps in flags.steps:
        functions = {name: meta_gradient(e, steps) for name, e in engines(steps).items()}
        measurements = measure(functions, dict.fromkeys(functions, arguments), flags.repeats)
        measured[steps] = {name: one.cost for name, one in measurements.items()}
        print(table({steps: measured[steps]}), flush=True)
    text += table(measured) + "\n"
    if flags.out:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
