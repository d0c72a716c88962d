"""Times a meta-step as in training: python -m benchmarks.meta_step --estimator=second_order

Songs are random; everything else is as in training, including the drawing of tasks inside the
compiled step. Prints one JSON object: time, compile time, memory, operations and bytes of the
compiled program, and the shares of the matrix-product rate and of the memory bandwidth that were
measured in the same run.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine, process
from benchmarks.output import add_json_flag, report
from benchmarks.problem import Problem, from_flags, parser, random_songs
from configs import base
from dsaml_jax.config.estimators import EngineConfig, FirstOrderConfig, SecondOrderConfig
from dsaml_jax.config.experiment import TaskConfig, experiment_from_config
from dsaml_jax.config.inner import outer_optimizer
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.data.tasks import draw_tasks
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.runtime.hlo_cost import program_cost
from dsaml_jax.training.state import initial_state
from dsaml_jax.training.step import make_meta_step

OUTER_RATE = 5e-5
"""Learning rate of Adam, as released."""

PRECISIONS = ("default", "high", "highest")
"""Values of `jax_default_matmul_precision`."""

SPEED = ("adapter_clips", "lstm_unroll")
"""Fields of the model's config that change its speed only."""


class Timed:
    """A compiled meta-step with its state.

    Attributes:
      compile_seconds: Time to trace, lower and compile.
      compiled: The program.
    """

    def __init__(self, problem: Problem, **speed: int):
        self.problem = problem
        model = DSAMLConfig(
            dim=problem.dim,
            heads=problem.heads,
            layers=problem.layers,
            feed_forward=problem.feed_forward,
            lstm_dim=problem.lstm_dim,
            predictor_dim=problem.predictor_dim,
            dropout=problem.dropout,
            normalization=problem.normalization,
            dtype=problem.dtype,
        )
        self.model = dataclasses.replace(model, **speed)
        self.tables = tables(problem)
        self.key = jax.random.key(0)
        estimator = {
            "first_order": FirstOrderConfig(),
            "second_order": SecondOrderConfig(engine=EngineConfig(problem.engine)),
        }[problem.estimator]
        inner = dataclasses.replace(
            experiment_from_config(base.get_config().to_dict()).inner,
            steps=problem.inner_steps,
            optimizer=OptimizerConfig("sgd", {"learning_rate": problem.inner_rate}),
            estimator=estimator,
        )
        outer = outer_optimizer(OptimizerConfig("adam", {"learning_rate": OUTER_RATE}), 0.0, inner)
        image = (problem.frames, problem.bands)
        self.state = initial_state(
            self.model, inner.loop(), outer, jax.random.key(1), image, problem.dim
        )
        sizes = TaskConfig(problem.tasks, problem.shots, problem.queries, problem.tasks_per_device)
        step = make_meta_step(self.model, sizes, inner, outer, steps=1)
        start = time.perf_counter()
        self.compiled = step.lower(self.state, self.tables, self.key).compile()
        self.compile_seconds = time.perf_counter() - start

    def step(self) -> tuple[float, dict[str, float]]:
        """Takes a step; returns its seconds and its metrics."""
        start = time.perf_counter()
        self.state, metrics = self.compiled(self.state, self.tables, self.key)
        scalars = jax.device_get(metrics.scalars)
        metrics = {name: float(value) for name, value in scalars.items()}
        return time.perf_counter() - start, metrics

    def next_draw(self) -> np.ndarray:
        """Returns the songs of the next step's tasks [tasks, songs], the support first."""
        key, _ = jax.random.split(jax.random.fold_in(self.key, self.state.step))
        sizes = dict(
            meta_batch=self.problem.tasks, support=self.problem.shots, query=self.problem.queries
        )
        draw = draw_tasks(key, self.tables, **sizes)
        return np.concatenate([draw.support, draw.query], axis=1)


def tables(problem: Problem) -> Tables:
    """Returns random songs, each rated by one annotator."""
    songs = {name: jnp.asarray(value) for name, value in random_songs(problem).items()}
    count = problem.tasks * problem.songs
    rating = jnp.arange(count, dtype=jnp.int32)
    return Tables(
        **songs,
        valid=jnp.ones((count, problem.segments), bool),
        song_of=rating,
        annotator_of=rating // problem.songs,
        ratings_of=rating.reshape(problem.tasks, problem.songs),
        counts=jnp.full(problem.tasks, problem.songs, jnp.int32),
    )


def measure(problem: Problem, repeats: int, **speed: int) -> dict[str, Any]:
    """Returns what this module prints."""
    load = process.load()
    timed = Timed(problem, **speed)
    before = memory_in_use()
    first = timed.step()[1]
    seconds = [timed.step()[0] for _ in range(repeats)]
    median = statistics.median(seconds)
    memory = timed.compiled.memory_analysis()
    assert memory is not None
    work = program_cost(timed.compiled.as_text() or "")
    peak_flops, peak_bytes = machine.matmul_rate(problem.dtype), machine.memory_bandwidth()
    weights = sum(leaf.size for leaf in jax.tree.leaves(timed.state.weights.params))
    return {
        "problem": vars(problem) | speed,
        "matmul_precision": jax.config.jax_default_matmul_precision,
        "first_step": {name: first[name] for name in ("loss", "gradient_norm")},
        "device": jax.devices()[0].device_kind,
        "seconds": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "compile_seconds": timed.compile_seconds,
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "device_bytes_before": before,
        "device_bytes_peak": memory_in_use("peak_bytes_in_use"),
        "program_matmul_flops": work.matmul_flops,
        "program_other_flops": work.other_flops,
        "program_bytes": work.bytes,
        "model_flops": model_flops(problem),
        "matmul_flops_per_second": peak_flops,
        "bandwidth_bytes_per_second": peak_bytes,
        "share_of_matmul_rate": model_flops(problem) / median / peak_flops,
        "weights": weights,
        "model_bytes": model_bytes(problem, weights),
        "share_of_bandwidth": model_bytes(problem, weights) / median / peak_bytes,
        "load": {"before": load, "after": process.load()},
    }


def model_flops(problem: Problem) -> float:
    """Returns the multiplications and additions that the method needs, from its sizes.

    The forward pass of a clip is counted by layer; a gradient takes two more passes of that cost.
    Exact second order takes one Hessian-vector product per inner step: four more passes.
    Elementwise operations and recomputation do not count.
    """
    segments, dim = problem.segments, problem.dim
    rows, columns = problem.frames + 2, problem.bands + 2
    first = 3 * 8 * rows * columns
    rows, columns = rows // 2 + 1, columns // 2 + 1
    second = 9 * 8 * 16 * rows * columns
    rows, columns = rows // 2 + 1, columns // 2 + 1
    segment = first + second + 16 * rows * columns + rows * columns * dim + dim**2
    # Two passes; the three terms of attention are scores, distances and the weighted sum.
    layer = 4 * dim**2 + 2 * dim * problem.feed_forward + 3 * segments * dim + segments * dim
    segment += 2 * problem.layers * layer
    segment += 2 * 4 * problem.lstm_dim * (dim + problem.lstm_dim)
    segment += 2 * problem.lstm_dim * problem.predictor_dim + 2 * problem.predictor_dim
    clip = 2 * segments * segment
    gradients = problem.inner_steps * problem.shots + problem.queries
    products = problem.inner_steps * problem.shots * (problem.estimator == "second_order")
    return float(problem.tasks * clip * (3 * gradients + 4 * products))


def model_bytes(problem: Problem, weights: int) -> float:
    """Returns the bytes that adapted weights alone must move; no cache holds them at paper size.

    Each task has its own weights. A gradient reads them forward and backward and writes an array of
    their size; an inner step then reads gradient and weights and writes weights: six times their
    size. The query's gradient takes three. A Hessian-vector product reads weights and direction
    twice each and writes one array. Weights are float32 whatever the arithmetic.
    """
    inner = problem.inner_steps * (6 + 5 * (problem.estimator == "second_order"))
    return 4.0 * weights * problem.tasks * (inner + 3)


def memory_in_use(field: str = "bytes_in_use") -> int | None:
    """Returns a memory statistic of the device; None if it reports none (a CPU)."""
    return (jax.devices()[0].memory_stats() or {}).get(field)


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0])
    flags.add_argument("--repeats", type=int, default=5)
    for name in SPEED:
        flags.add_argument(f"--{name}", type=int, default=1, help="field of the model's config")
    flags.add_argument(
        "--matmul_precision",
        default="default",
        choices=PRECISIONS,
        help="of float32; on an NVIDIA GPU the default is TF32",
    )
    add_json_flag(flags)
    args = flags.parse_args()
    jax.config.update("jax_default_matmul_precision", args.matmul_precision)
    speed = {name: getattr(args, name) for name in SPEED}
    report(measure(from_flags(args), args.repeats, **speed), args.json)


if __name__ == "__main__":
    main()
