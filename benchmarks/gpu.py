"""Measures on a GPU what docs/performance.md reports: python -m benchmarks.gpu --json=gpu.json

At paper size (D 1024, 16 heads, 3 layers, 16 tasks, 16 inner steps, 1 shot, 15 queries): time,
memory, and shares of the measured matrix-product rate and bandwidth of a meta-step, first order and
exact second order, in float32 and bfloat16; PyTorch's first-order step on the same card, if PyTorch
with CUDA is installed; inference latency. Both sides multiply float32 matrices in TF32, which is
JAX's default. Each measurement runs in a process of its own, so that its peak memory is its own.
One that fails is recorded with its error. Compilation takes minutes, so `--minutes` may end before
the last ones, which are then listed as skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAPER = dict(dim=1024, heads=16, layers=3, tasks=16, inner_steps=16, shots=1, queries=15)


def plan(problem: dict[str, int], repeats: int, adapter_clips: int) -> dict[str, list[str]]:
    """Returns {name of a measurement: its command}, the most important first."""
    sizes = [f"--{name}={value}" for name, value in problem.items()]
    model = [f"--{name}={problem[name]}" for name in ("dim", "heads", "layers")]

    def step(estimator: str, dtype: str) -> list[str]:
        return [
            "benchmarks.meta_step",
            *sizes,
            "--tasks_per_device=0",
            "--normalization=clip",
            f"--repeats={repeats}",
            f"--adapter_clips={adapter_clips}",
            f"--estimator={estimator}",
            f"--dtype={dtype}",
        ]

    torch = ["benchmarks.torch_step", *sizes, "--device=cuda", "--matmul_precision=high"]
    return {
        "first_order_float32": step("first_order", "float32"),
        "torch_first_order_float32": [*torch, f"--repeats={min(repeats, 2)}"],
        "inference_float32": ["benchmarks.inference", *model, "--dtype=float32"],
        "second_order_float32": step("second_order", "float32"),
        "first_order_bfloat16": step("first_order", "bfloat16"),
        "inference_bfloat16": ["benchmarks.inference", *model, "--dtype=bfloat16"],
        "second_order_bfloat16": step("second_order", "bfloat16"),
    }


def run(
    commands: dict[str, list[str]], minutes: float, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Returns {name: result or {"error": ...}}; calls `report(results)` after each measurement."""
    end = time.monotonic() + 60 * minutes
    results = {}
    for name, command in commands.items():
        left = end - time.monotonic()
        if name.startswith("torch") and importlib.util.find_spec("torch") is None:
            results[name] = {"error": "PyTorch is not installed (requirements-benchmarks.txt)"}
        elif left < 1:
            results[name] = {"error": f"skipped: the {minutes:g} minutes of --minutes are over"}
        else:
            results[name] = measure(command, left)
        print(f"{name}: {json.dumps(results[name])[:300]}", flush=True)
        report(results)
    return results


def measure(command: list[str], seconds: float) -> dict[str, Any]:
    """Runs a benchmark for at most `seconds`; returns what it writes, or its error."""
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
            return {"error": f"not finished after {seconds:.0f} s"}
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1:]}
        return json.loads(path.read_text())


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """Returns the time of second order over first order, and of PyTorch over ours."""

    def ratio(numerator: str, denominator: str) -> float | None:
        values = [results.get(name, {}).get("seconds") for name in (numerator, denominator)]
        return values[0] / values[1] if all(values) else None

    named = {
        "second_over_first_order_float32": ratio("second_order_float32", "first_order_float32"),
        "second_over_first_order_bfloat16": ratio("second_order_bfloat16", "first_order_bfloat16"),
        "torch_over_first_order_float32": ratio("torch_first_order_float32", "first_order_float32"),
    }
    return {name: value for name, value in named.items() if value is not None}


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, value in PAPER.items():
        flags.add_argument(f"--{name}", type=int, default=value)
    flags.add_argument("--adapter_clips", type=int, default=16)
    flags.add_argument("--repeats", type=int, default=3)
    flags.add_argument("--minutes", type=float, default=9.0)
    flags.add_argument("--json", type=Path, default=Path("gpu.json"))
    args = flags.parse_args()
    problem = {name: getattr(args, name) for name in PAPER}

    def report(results: dict[str, Any]) -> None:
        content = {"problem": problem, "ratios": ratios(results), "results": results}
        args.json.write_text(json.dumps(content, indent=1) + "\n")

    run(plan(problem, args.repeats, args.adapter_clips), args.minutes, report)
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
