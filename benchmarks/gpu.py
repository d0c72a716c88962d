"""Everything we claim of a GPU, measured in one go: python -m benchmarks.gpu --json=gpu.json

At paper size (D 1024, 16 heads, 3 layers, 16 tasks, 16 inner steps, 1 shot, 15 queries): a
meta-step first order and exact second order, in float32 and bfloat16, with memory and the shares of
the measured matmul rate and bandwidth; PyTorch's first-order step on the same card where PyTorch
with CUDA is installed; latencies of inference. A measurement that fails is written down with its
error, and what does not fit into `--minutes` is left out by name. Every measurement has a process
of its own, so that memory is its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAPER = dict(dim=1024, heads=16, layers=3, tasks=16, inner_steps=16, shots=1, queries=15)


def plan(problem: dict[str, int], repeats: int, adapter_clips: int) -> dict[str, list[str]]:
    """{name of a measurement: its command}, the most important first."""
    sizes = [f"--{name}={value}" for name, value in problem.items()]
    step = [
        "benchmarks.meta_step",
        *sizes,
        "--tasks_per_device=0",
        "--normalization=clip",
        f"--repeats={repeats}",
    ]
    step.append(f"--adapter_clips={adapter_clips}")
    commands = {
        f"{estimator}_{dtype}": [*step, f"--estimator={estimator}", f"--dtype={dtype}"]
        for dtype in ("float32", "bfloat16")
        for estimator in ("first_order", "second_order")
    }
    commands["torch_first_order_float32"] = [
        "benchmarks.torch_step",
        *sizes,
        "--device=cuda",
        f"--repeats={min(repeats, 2)}",
    ]
    model = [f"--{name}={problem[name]}" for name in ("dim", "heads", "layers")]
    for dtype in ("float32", "bfloat16"):
        commands[f"inference_{dtype}"] = ["benchmarks.inference", *model, f"--dtype={dtype}"]
    return commands


def run(commands: dict[str, list[str]], minutes: float, report) -> dict:
    """{name: result, or {"error": ...}}; `report(results)` is called after each."""
    end = time.monotonic() + 60 * minutes
    results = {}
    for name, command in commands.items():
        left = end - time.monotonic()
        if name.startswith("torch") and importlib.util.find_spec("torch") is None:
            results[name] = {"error": "PyTorch is not installed (requirements-benchmarks.txt)"}
        elif left < 1:
            results[name] = {"error": f"left out: --minutes={minutes} are over"}
        else:
            results[name] = measure(command, left)
        print(f"{name}: {json.dumps(results[name])[:300]}", flush=True)
        report(results)
    return results


def measure(command: list[str], seconds: float) -> dict:
    """What a benchmark writes, or its error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        try:
            done = subprocess.run(
                [sys.executable, "-m", *command, f"--json={path}"],
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {seconds:.0f} s"}
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1:]}
        return json.loads(path.read_text())


def ratios(results: dict) -> dict[str, float]:
    """Time of second order over first, and of PyTorch over ours, where both were measured."""

    def ratio(a: str, b: str) -> float | None:
        values = [results.get(name, {}).get("seconds") for name in (a, b)]
        return values[0] / values[1] if all(values) else None

    named = {
        "second_over_first_order_float32": ratio("second_order_float32", "first_order_float32"),
        "second_over_first_order_bfloat16": ratio("second_order_bfloat16", "first_order_bfloat16"),
        "torch_over_first_order_float32": ratio("torch_first_order_float32", "first_order_float32"),
    }
    return {name: value for name, value in named.items() if value is not None}


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, value in PAPER.items():
        flags.add_argument(f"--{name}", type=int, default=value)
    flags.add_argument("--adapter_clips", type=int, default=16)
    flags.add_argument("--repeats", type=int, default=3)
    flags.add_argument("--minutes", type=float, default=7.5)
    flags.add_argument("--json", type=Path, default=Path("gpu.json"))
    given = flags.parse_args()
    problem = {name: getattr(given, name) for name in PAPER}

    def report(results: dict) -> None:
        whole = {"problem": problem, "ratios": ratios(results), "results": results}
        given.json.write_text(json.dumps(whole, indent=1) + "\n")

    run(plan(problem, given.repeats, given.adapter_clips), given.minutes, report)
    print(f"written to {given.json}")


if __name__ == "__main__":
    main()
