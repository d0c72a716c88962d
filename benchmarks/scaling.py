"""What a meta-step computes, moves and communicates, and how far it would scale.

python -m benchmarks.scaling --estimator=second_order     # compiles only; prints Markdown

Counts are those of the program compiled for eight devices of this machine (fake ones on a CPU), of
`configs/base.py`, which is the paper's size. Efficiency is a model, not a measurement:
    E(N) = T / (T + C(N))
T is the LEAST time that the step can take, so that the share of communication is the largest: the
larger of matrix operations over the peak rate, and the bytes that weights alone must move over the
memory bandwidth. Nothing of the all-reduce, which takes C(N), is hidden behind computing.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import NamedTuple

import jax

DEVICES = 8
"""That the program is compiled for; the meta-batch of 16 gives each two tasks."""


class Accelerator(NamedTuple):
    """Peak rates; FLOP/s of dense matrix products by arithmetic type, bytes/s of memory."""

    flops: dict[str, float]
    memory: float


class Network(NamedTuple):
    """Attributes:
    name: what the table calls it.
    inside: bytes/s in one direction between the devices of a host.
    outside: bytes/s in one direction that each HOST has to others; 0 where all are one network.
    host: devices of a host.
    hop: seconds that a message takes, at least.
    """

    name: str
    inside: float
    outside: float
    host: int
    hop: float

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds for `size` bytes: reduce-scatter and all-gather in the host, a ring of hosts."""
        inside = min(devices, self.host) if self.outside else devices
        hosts = devices // inside
        seconds = 2 * (inside - 1) / inside * size / self.inside
        if hosts > 1:
            seconds += 2 * (hosts - 1) / hosts * size / self.outside
        return seconds + 2 * math.ceil(math.log2(devices)) * self.hop


H200 = Accelerator({"bfloat16": 989e12, "float32": 494e12}, 4.8e12)
"""NVIDIA's data sheet of the H200 SXM: 989 TFLOP/s dense in bfloat16, 494 in TF32, 4.8 TB/s."""

NETWORKS = (
    Network("NVLink, InfiniBand 8 x 400 Gb/s a host", 450e9, 400e9, 8, 10e-6),
    Network("NVLink, Ethernet 100 Gb/s a host", 450e9, 12.5e9, 8, 50e-6),
    Network("PCIe 4, Ethernet 10 Gb/s a host", 25e9, 1.25e9, 8, 50e-6),
)
"""NVLink 4: 900 GB/s a GPU in both directions together, by the same data sheet. A DGX H200 has
eight 400 Gb/s adapters. PCIe 4 x16: 32 GB/s in one direction, of which about 25 are reached.
Latencies are assumptions."""


def table(least: float, size: float, counts: tuple[int, ...]) -> list[str]:
    """Markdown: efficiency by network and number of devices."""
    lines = [
        "| network | " + " | ".join(f"{n} devices" for n in counts) + " |",
        "| --- |" + " ---: |" * len(counts),
    ]
    for network in NETWORKS:
        seconds = [network.all_reduce(size, n) for n in counts]
        cells = [f"{least / (least + s):.1%} ({1e3 * s:.2g} ms)" for s in seconds]
        lines.append(f"| {network.name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    flags.add_argument("--estimator", default="first_order")
    flags.add_argument("--dtype", default="float32", choices=sorted(H200.flops))
    flags.add_argument("--tasks_per_device", type=int, default=1)
    given = flags.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)

    from benchmarks.meta_step import model_bytes
    from benchmarks.problem import Problem
    from configs import base
    from dsaml_jax.commands.dry_run import abstract_arguments, compile_step, program_memory, si
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.runtime.hlo_cost import program_cost
    from dsaml_jax.training.devices import task_mesh

    config = base.get_config()
    config.tasks.tasks_per_device = given.tasks_per_device
    config.inner.estimator = base.estimator(given.estimator)
    config.model.dtype = given.dtype
    experiment = experiment_from_config(config.to_dict())
    mesh = task_mesh()
    tasks = experiment.tasks.meta_batch // mesh.devices.size
    compiled = compile_step(experiment, mesh)
    work, memory = program_cost(compiled.as_text()), program_memory(compiled)
    state, *_ = abstract_arguments(experiment, mesh)
    weights = sum(leaf.size for leaf in jax.tree.leaves(state.weights.params))
    problem = Problem(tasks=tasks, inner_steps=experiment.inner.steps, estimator=given.estimator)
    moved = model_bytes(problem, weights)
    times = {
        "matrix products": work.matmul_flops / H200.flops[given.dtype],
        "traffic of the weights": moved / H200.memory,
    }
    least = max(times.values())
    (reduced,) = work.collectives
    lines = [
        f"{given.estimator}, {given.dtype}, {weights:,} weights, {tasks} tasks a device, "
        f"{given.tasks_per_device} at once",
        "",
        "| of a meta-step, each device | |",
        "| --- | ---: |",
        f"| matrix products | {si(work.matmul_flops)}FLOP |",
        f"| other arithmetic | {si(work.other_flops)}FLOP |",
        f"| read and written by the kernels compiled here | {si(work.bytes)}B |",
        f"| of it the weights must move | {si(moved)}B |",
        f"| peak memory | {si(memory.peak)}B, temporary {si(memory.temporary)}B |",
        f"| communicated | {reduced.times} {reduced.kind} of {si(reduced.bytes)}B |",
        f"| loops of unknown length, counted once | {work.unbounded_loops} |",
        "",
        "Least time on an H200: "
        + "; ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in times.items())
        + ".",
        "",
        *table(least, reduced.bytes, (8, 64, 512)),
        "",
        f"Counted: {dataclasses.asdict(work)}",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
