"""Measures the share of the compiled step in training, and compile time without and with a cache.

    python -m benchmarks.training_loop [--config demo_paper] [--steps 50] [--json]

Trains both stages of a config for `--steps` steps, validating at the start and at the end, twice,
in processes of their own: the second one finds the compiled programs of the first. Each step and
validation is waited for, so that the remaining time is that of the loop: logging and saving.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import process

PASSES = ("cold", "cached")


def measure(config: str, steps: int, cache: str) -> dict[str, float]:
    """Trains in this process; returns the seconds of each part."""
    import jax

    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.data.loading import load_corpora
    from dsaml_jax.runtime.compilation_cache import enable_compilation_cache
    from dsaml_jax.training import stages

    enable_compilation_cache(cache)
    module = importlib.import_module(f"configs.{config}")
    experiment = experiment_from_config(module.get_config().to_dict())
    short = dict(steps=steps, validate_every=steps)
    experiment = dataclasses.replace(
        experiment,
        population=dataclasses.replace(experiment.population, **short),
        meta=dataclasses.replace(experiment.meta, **short),
    )
    spent = defaultdict(list)

    def timed(name, make):
        def making(*arguments):
            function = make(*arguments)

            def call(*arguments):
                start = time.perf_counter()
                result = jax.block_until_ready(function(*arguments))
                spent[f"{name} {len(makes[name])}"].append(time.perf_counter() - start)
                return result

            makes[name].append(call)
            return call

        makes = defaultdict(list)
        return making

    def fit(*arguments, **named):
        start = time.perf_counter()
        try:
            return fitted(*arguments, **named)
        finally:
            spent["loop"].append(time.perf_counter() - start)

    fitted, stages.fit = stages.fit, fit
    stages.make_meta_step = timed("step", stages.make_meta_step)
    stages.validation = timed("validation", stages.validation)
    corpora = load_corpora(experiment)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "figures").mkdir()
        stages.train(experiment, corpora, Path(folder))
    wall = sum(spent.pop("loop"))
    # The first call of a program traces and compiles it.
    compiling = {n: max(0.0, s[0] - statistics.median(s[1:])) for n, s in spent.items()}
    steps_s = sum(sum(s[1:]) for n, s in spent.items() if n.startswith("step"))
    validating = sum(sum(s[1:]) for n, s in spent.items() if n.startswith("validation"))
    first = sum(s[0] for s in spent.values())
    return {
        "compile_seconds": sum(compiling.values()),
        "slowest_program_seconds": max(compiling.values()),
        "step_share": steps_s / (wall - first - validating),
        "step_and_validation_share": (steps_s + validating) / (wall - first),
        "loop_seconds": wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="demo_paper", help="a name in configs/")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.cache:
        print(json.dumps(measure(flags.config, flags.steps, flags.cache)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in PASSES:
            command = [sys.executable, "-m", "benchmarks.training_loop", f"--cache={cache}"]
            command += [f"--config={flags.config}", f"--steps={flags.steps}"]
            finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result = results[name] = json.loads(finished.stdout.splitlines()[-1])
            print(
                f"{name}: compiling {result['compile_seconds']:.1f} s, its slowest program "
                f"{result['slowest_program_seconds']:.1f} s; of the loop "
                f"{result['step_share']:.1%} in the compiled step, "
                f"{result['step_and_validation_share']:.1%} with validation",
                flush=True,
            )
    if flags.json:
        print(json.dumps(results | {"load": process.load()}))


if __name__ == "__main__":
    main()
