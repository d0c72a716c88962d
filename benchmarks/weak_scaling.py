"""Measures tasks per second as devices and meta-batch grow together.

    python -m benchmarks.weak_scaling --json

Runs the demo's meta-step with `--tasks` tasks per device on 1, 2, 4, ... devices of this machine.
On accelerators, tasks per second should grow with the devices. Simulated devices of a CPU share its
cores: there, tasks per second show what distribution costs. Steps of all numbers of devices
alternate; medians, minima and maxima are reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time

import jax


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--tasks", type=int, default=4, help="per device")
    flags.add_argument("--cpu_devices", type=int, default=8, help="simulated devices on a CPU")
    flags.add_argument("--repeats", type=int, default=7)
    flags.add_argument("--json", action="store_true")
    args = flags.parse_args()
    jax.config.update("jax_num_cpu_devices", args.cpu_devices)

    from configs import demo_paper
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.data.loading import load_corpora
    from dsaml_jax.training.devices import replicate, task_mesh
    from dsaml_jax.training.stages import initial_meta_state
    from dsaml_jax.training.step import make_meta_step

    experiment = experiment_from_config(demo_paper.get_config().to_dict())
    tables, stage = load_corpora(experiment)["train"].tables, experiment.meta
    runs = {}
    for count in (n for n in (2**i for i in range(10)) if n <= jax.device_count()):
        mesh = task_mesh(jax.devices()[:count])
        tasks = dataclasses.replace(experiment.tasks, meta_batch=count * args.tasks)
        optimizer = stage.build_optimizer(experiment.inner)
        step = make_meta_step(
            experiment.model, tasks, experiment.inner, optimizer, stage.steps, mesh
        )
        everywhere = (initial_meta_state(experiment), tables, jax.random.key(0))
        state, *arguments = replicate(everywhere, mesh)
        state, _ = jax.block_until_ready(step(state, *arguments))
        runs[count] = [step, state, arguments, []]
    for _ in range(args.repeats):
        for run in runs.values():
            step, state, arguments, seconds = run
            start = time.perf_counter()
            run[1], _ = jax.block_until_ready(step(state, *arguments))
            seconds.append(time.perf_counter() - start)
    rates = {
        count: [count * args.tasks / s for s in sorted(seconds, reverse=True)]
        for count, (*_, seconds) in runs.items()
    }
    one = statistics.median(rates[1])
    results = {
        count: {
            "tasks_per_second": statistics.median(values),
            "least": values[0],
            "most": values[-1],
            "of_one_device": statistics.median(values) / one,
        }
        for count, values in rates.items()
    }
    print(f"{jax.devices()[0].device_kind}, {args.tasks} tasks per device\n")
    print(
        "| devices | tasks per second | minimum to maximum | of one device's |\n|---|---|---|---|"
    )
    for count, row in results.items():
        print(
            f"| {count} | {row['tasks_per_second']:.1f} | {row['least']:.1f} to {row['most']:.1f} "
            f"| {row['of_one_device']:.2f} |"
        )
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
