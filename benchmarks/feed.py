"""Measures what several meta-steps per call, and songs in host memory, do to the speed of training.

    python -m benchmarks.feed --json

Times the demo's meta-steps as in training, alternating between one per call with all songs on the
device, `--per_call` per call, and one per call with streamed songs. Prints the median milliseconds
per step, and the ratio to the first.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import time
from typing import Any

import jax
import numpy as np


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--per_call", type=int, default=10)
    flags.add_argument(
        "--rounds", type=int, default=7, help="of --per_call steps, for each variant"
    )
    flags.add_argument("--json", action="store_true")
    args = flags.parse_args()

    from configs import demo_paper
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.data.loading import load_corpora
    from dsaml_jax.training.batch_source import open_batch_source
    from dsaml_jax.training.devices import replicate, task_mesh
    from dsaml_jax.training.stages import initial_meta_state
    from dsaml_jax.training.step import make_meta_step, songs_of_step

    experiment = experiment_from_config(demo_paper.get_config().to_dict())
    tables, stage, mesh = load_corpora(experiment)["train"].tables, experiment.meta, task_mesh()
    host = tables._replace(
        log_mel=np.asarray(tables.log_mel), embedding=np.asarray(tables.embedding)
    )
    key = jax.random.key(0)
    variants = {
        "one per call": (tables, 1),
        f"{args.per_call} per call": (tables, args.per_call),
        "one per call, streamed": (host, 1),
    }
    runs: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with contextlib.ExitStack() as stack:
        for name, (songs, count) in variants.items():
            step = make_meta_step(
                experiment.model,
                experiment.tasks,
                experiment.inner,
                stage.build_optimizer(experiment.inner),
                stage.steps,
                mesh,
                count,
            )
            batch_source = stack.enter_context(
                open_batch_source(
                    songs, functools.partial(songs_of_step, experiment.tasks), key, mesh
                )
            )
            state = replicate(initial_meta_state(experiment), mesh)
            state, _ = step(state, batch_source(0, count), key)
            runs[name] = step, batch_source, count, jax.block_until_ready(state)
        for turn in range(args.rounds):
            for name, (step, batch_source, count, state) in runs.items():
                first, started = turn * args.per_call + count, time.perf_counter()
                for i in range(first, first + args.per_call, count):
                    state, _ = step(state, batch_source(i, count), key)
                jax.block_until_ready(state)
                seconds[name].append((time.perf_counter() - started) / args.per_call)
                runs[name] = step, batch_source, count, state
    one = statistics.median(seconds["one per call"])
    results = {
        name: {
            "milliseconds": 1e3 * statistics.median(times),
            "ratio": statistics.median(times) / one,
        }
        for name, times in seconds.items()
    }
    for name, row in results.items():
        print(f"{name}: {row['milliseconds']:.1f} ms per meta-step, ratio {row['ratio']:.3f}")
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
