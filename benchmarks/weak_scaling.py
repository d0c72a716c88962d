"""Tasks a second as devices and meta-batch grow together: what spreading itself costs.

    python -m benchmarks.weak_scaling --json

The demo's meta-step with `--tasks` tasks a device on 1, 2, 4, ... devices of this machine. Where
these are accelerators, tasks a second should grow as they do. Fake devices of a CPU share its
cores: there tasks a second can at best stay the same, and what is lost is what spreading costs.
Steps of all numbers of devices are timed in turns; medians, with least and most.
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
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    flags.add_argument("--tasks", type=int, default=4, help="on each device")
    flags.add_argument("--cpu_devices", type=int, default=8, help="fake ones, on a CPU")
    flags.add_argument("--repeats", type=int, default=7)
    flags.add_argument("--json", action="store_true")
    given = flags.parse_args()
    jax.config.update("jax_num_cpu_devices", given.cpu_devices)

    from configs import demo
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.data.loading import load_corpora
    from dsaml_jax.training.devices import replicate, task_mesh
    from dsaml_jax.training.stages import initial_meta_state
    from dsaml_jax.training.step import make_meta_step

    experiment = experiment_from_config(demo.get_config().to_dict())
    tables, stage = load_corpora(experiment)["train"].tables, experiment.meta
    runs = {}
    for count in (n for n in (2**i for i in range(10)) if n <= jax.device_count()):
        mesh = task_mesh(jax.devices()[:count])
        tasks = dataclasses.replace(experiment.tasks, meta_batch=count * given.tasks)
        optimizer = stage.build_optimizer(experiment.inner)
        step = make_meta_step(
            experiment.model, tasks, experiment.inner, optimizer, stage.steps, mesh
        )
        everywhere = (initial_meta_state(experiment), tables, jax.random.key(0))
        state, *arguments = replicate(everywhere, mesh)
        state, _ = jax.block_until_ready(step(state, *arguments))
        runs[count] = [step, state, arguments, []]
    for _ in range(given.repeats):
        for run in runs.values():
            step, state, arguments, seconds = run
            started = time.perf_counter()
            run[1], _ = jax.block_until_ready(step(state, *arguments))
            seconds.append(time.perf_counter() - started)
    rates = {
        count: [count * given.tasks / s for s in sorted(seconds, reverse=True)]
        for count, (*_, seconds) in runs.items()
    }
    one = statistics.median(rates[1])
    found = {
        count: {
            "tasks_per_second": statistics.median(each),
            "least": each[0],
            "most": each[-1],
            "of_one_device": statistics.median(each) / one,
        }
        for count, each in rates.items()
    }
    print(f"{jax.devices()[0].device_kind}, {given.tasks} tasks a device\n")
    print("| devices | tasks a second | least to most | of one device's |\n|---|---|---|---|")
    for count, row in found.items():
        print(
            f"| {count} | {row['tasks_per_second']:.1f} | {row['least']:.1f} to {row['most']:.1f} "
            f"| {row['of_one_device']:.2f} |"
        )
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
