"""Reports what a meta-step computes, moves and communicates, and models how far it scales.

    python -m benchmarks.scaling --estimator=second_order     # compiles only; prints Markdown

Counts are those of `configs/base.py`, the paper's size, compiled for eight devices of this machine
(simulated ones on a CPU). Efficiency is a model, not a measurement:
    E(N) = T / (T + C(N))
T is a lower bound on the time of the step, which makes the share of communication as large as it
can be: the larger of matrix operations over the peak rate, and the bytes that weights alone must
move over the memory bandwidth. None of the all-reduce, which takes C(N), overlaps computation.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import NamedTuple

import jax

DEVICES = 8
"""Devices that the program is compiled for; a meta-batch of 16 gives each two tasks."""


class Accelerator(NamedTuple):
    """Peak rates of a device.

    Attributes:
      flops: FLOP/s of dense matrix products, by type.
      memory: Memory bandwidth, bytes/s.
    """

    flops: dict[str, float]
    memory: float


class Network(NamedTuple):
    """A network between devices.

    Attributes:
      name: Name in the table.
      inside: Bytes/s in one direction between the devices of a host.
      outside: Bytes/s in one direction between HOSTS; 0 if all devices share one network.
      host: Devices per host.
      hop: Latency of a message, seconds.
    """

    name: str
    inside: float
    outside: float
    host: int
    hop: float

    def all_reduce(self, size: float, devices: int) -> float:
        """Returns the seconds for `size` bytes: reduce-scatter, all-gather, a ring of hosts."""
        inside = min(devices, self.host) if self.outside else devices
        hosts = devices // inside
        seconds = 2 * (inside - 1) / inside * size / self.inside
        if hosts > 1:
            seconds += 2 * (hosts - 1) / hosts * size / self.outside
        return seconds + 2 * math.ceil(math.log2(devices)) * self.hop


H200 = Accelerator({"bfloat16": 989e12, "float32": 494e12}, 4.8e12)
"""From the data sheet of the H200 SXM: 989 TFLOP/s dense in bfloat16, 494 in TF32, 4.8 TB/s."""

NETWORKS = (
    Network("NVLink, InfiniBand 8 x 400 Gb/s a host", 450e9, 400e9, 8, 10e-6),
    Network("NVLink, Ethernet 100 Gb/s a host", 450e9, 12.5e9, 8, 50e-6),
    Network("PCIe 4, Ethernet 10 Gb/s a host", 25e9, 1.25e9, 8, 50e-6),
)
"""NVLink 4: 900 GB/s per GPU, both directions together, by the same data sheet. A DGX H200 has
eight 400 Gb/s adapters. PCIe 4 x16: 32 GB/s in one direction, about 25 in practice.
Latencies are assumptions."""


def table(lower_bound: float, size: float, counts: tuple[int, ...]) -> list[str]:
    """Formats the efficiency by network and number of devices as Markdown."""
    lines = [
        "| network | " + " | ".join(f"{n} devices" for n in counts) + " |",
        "| --- |" + " ---: |" * len(counts),
    ]
    for network in NETWORKS:
        seconds = [network.all_reduce(size, n) for n in counts]
        cells = [f"{lower_bound / (lower_bound + s):.1%} ({1e3 * s:.2g} ms)" for s in seconds]
        lines.append(f"| {network.name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--estimator", default="first_order")
    flags.add_argument("--dtype", default="float32", choices=sorted(H200.flops))
    flags.add_argument("--tasks_per_device", type=int, default=1)
    args = flags.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)

    from benchmarks.meta_step import model_bytes
    from benchmarks.problem import Problem
    from configs import base
    from dsaml_jax.commands.dry_run import abstract_arguments, compile_step, program_memory, si
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.runtime.hlo_cost import program_cost
    from dsaml_jax.training.devices import task_mesh

    config = base.get_config()
    config.tasks.tasks_per_device = args.tasks_per_device
    config.inner.estimator = base.estimator(args.estimator)
    config.model.dtype = args.dtype
    experiment = experiment_from_config(config.to_dict())
    mesh = task_mesh()
    tasks = experiment.tasks.meta_batch // mesh.devices.size
    compiled = compile_step(experiment, mesh)
    work, memory = program_cost(compiled.as_text() or ""), program_memory(compiled)
    state, *_ = abstract_arguments(experiment, mesh)
    weights = sum(leaf.size for leaf in jax.tree.leaves(state.weights.params))
    problem = Problem(tasks=tasks, inner_steps=experiment.inner.steps, estimator=args.estimator)
    moved = model_bytes(problem, weights)
    seconds_by_limit = {
        "matrix products": work.matmul_flops / H200.flops[args.dtype],
        "traffic of the weights": moved / H200.memory,
    }
    lower_bound = max(seconds_by_limit.values())
    (reduced,) = work.collectives
    lines = [
        f"{args.estimator}, {args.dtype}, {weights:,} weights, {tasks} tasks per device, "
        f"{args.tasks_per_device} at once",
        "",
        "| per meta-step and device | |",
        "| --- | ---: |",
        f"| matrix products | {si(work.matmul_flops)}FLOP |",
        f"| other arithmetic | {si(work.other_flops)}FLOP |",
        f"| read and written by the kernels compiled here | {si(work.bytes)}B |",
        f"| moved by the weights alone | {si(moved)}B |",
        f"| peak memory | {si(memory.peak)}B, temporary {si(memory.temporary)}B |",
        f"| communicated | {reduced.times} {reduced.kind} of {si(reduced.bytes)}B |",
        f"| loops of unknown length, counted once | {work.unbounded_loops} |",
        "",
        "Lower bound on an H200: "
        + "; ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in seconds_by_limit.items())
        + ".",
        "",
        *table(lower_bound, reduced.bytes, (8, 64, 512)),
        "",
        f"Counted: {dataclasses.asdict(work)}",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
