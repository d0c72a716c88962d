"""Compares our meta-step with PyTorch's: python -m benchmarks.compare --json

Both sides get the same weights and songs, run in processes of their own, and alternate, so that
other load on the machine affects both. The ratio is the median over pairs of steps; the lowest and
the highest pair are reported too. Without dropout, query loss and meta-gradient norm of the first
steps must agree. Memory is the peak of a step minus what the process held before the first step
(libraries, songs, weights, remains of compilation).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import process
from benchmarks.problem import Problem, from_flags, load, parser

ESTIMATORS = ("first_order", "second_order")


class Side:
    """A process that takes a meta-step on request."""

    def __init__(self, python: str, name: str, problem: Problem, folder: Path, device: str):
        command = [python, "-m", "benchmarks.compare", "--serve", name, str(folder)]
        command += [f"--{key}={value}" for key, value in vars(problem).items()]
        command += ["--device", device]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Threads that spin while they wait would starve the other side.
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._command = " ".join(command)
        self.ready = self._read()

    def step(self) -> dict[str, Any]:
        """Takes a step; returns its time, loss, gradient norm and memory."""
        self._stdin.write("step\n")
        self._stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line:
            raise SystemExit(f"{self._command} ended; its message is above.")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._stdin.close()
        self._process.wait()


def compare(problem: Problem, pairs: int, torch_python: str, device: str = "cpu") -> dict[str, Any]:
    """Takes `pairs` steps of each side in turn; returns the ratios that the module describes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = Side(sys.executable, "jax", problem, folder, device)
        theirs = Side(torch_python, "torch", problem, folder, device)
        first = [ours.step(), theirs.step()]
        steps = []
        for i in range(pairs):
            order = (ours, theirs) if i % 2 else (theirs, ours)
            pair = {side: side.step() for side in order}
            steps.append((pair[ours], pair[theirs]))
        ours.close()
        theirs.close()
    if not problem.dropout and problem.dtype == "float32":
        for field in ("loss", "gradient_norm"):
            values = [side[field] for side in first]
            if not np.isclose(*values, rtol=1e-2):
                raise SystemExit(f"The sides disagree: {field} is {values[0]} and {values[1]}.")
    ratios = [b["seconds"] / a["seconds"] for a, b in steps]
    memory = [max(step["bytes"] for step in side) for side in zip(first, *steps, strict=True)]
    return {
        "speed_ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "memory_ratio": memory[0] / memory[1],
        "seconds": statistics.median(a["seconds"] for a, _ in steps),
        "torch_seconds": statistics.median(b["seconds"] for _, b in steps),
        "cpu_seconds": statistics.median(a["cpu_seconds"] for a, _ in steps),
        "torch_cpu_seconds": statistics.median(b["cpu_seconds"] for _, b in steps),
        "bytes": memory[0],
        "torch_bytes": memory[1],
        "compile_seconds": ours.ready["compile_seconds"],
        "temp_bytes": ours.ready["temp_bytes"],
        "first_loss": [side["loss"] for side in first],
        "first_gradient_norm": [side["gradient_norm"] for side in first],
        "pairs": pairs,
    }


def serve_jax(problem: Problem, folder: Path) -> None:
    """Compiles, writes weights and songs for the other side, and takes a step per line of stdin."""
    import flax.traverse_util
    import jax

    from benchmarks.meta_step import Timed, memory_in_use

    on_cpu = jax.default_backend() == "cpu"
    jax.config.update("jax_enable_compilation_cache", False)
    timed = Timed(problem)
    weights = flax.traverse_util.flatten_dict(jax.device_get(timed.state.weights.params), sep="/")
    np.savez(folder / "weights.npz", **weights)
    draw = timed.next_draw()
    songs = {name: getattr(timed.tables, name) for name in ("log_mel", "embedding", "curve")}
    np.savez(folder / "songs.npz", **{name: np.asarray(x)[draw] for name, x in songs.items()})
    memory = timed.compiled.memory_analysis()
    say(compile_seconds=timed.compile_seconds, temp_bytes=memory.temp_size_in_bytes)
    before = process.memory()
    for _ in sys.stdin:
        process.reset_peak_memory()
        used_cpu = time.process_time()
        seconds, metrics = timed.step()
        used_cpu = time.process_time() - used_cpu
        used = process.peak_memory() - before if on_cpu else memory_in_use("peak_bytes_in_use")
        say(
            seconds=seconds,
            cpu_seconds=used_cpu,
            loss=metrics["loss"],
            gradient_norm=metrics["gradient_norm"],
            bytes=used,
        )


def serve_torch(problem: Problem, folder: Path, device: str) -> None:
    """Reads weights and songs, and takes a step per line of stdin."""
    import torch

    from benchmarks import torch_baseline

    weights, songs = load(folder / "weights.npz"), load(folder / "songs.npz")
    dtype = getattr(torch, problem.dtype)
    tasks = {name: torch.from_numpy(x).to(device, dtype) for name, x in songs.items()}
    model = torch_baseline.build(problem, weights, device)
    optimizer = torch.optim.Adam(model.parameters(), 5e-5)
    say()
    before = process.memory()
    for _ in sys.stdin:
        process.reset_peak_memory()
        start, used_cpu = time.perf_counter(), time.process_time()
        loss, norm = torch_baseline.meta_step(model, optimizer, tasks, problem)
        seconds = time.perf_counter() - start
        used_cpu = time.process_time() - used_cpu
        on_cpu = device == "cpu"
        used = process.peak_memory() - before if on_cpu else torch.cuda.max_memory_allocated()
        say(seconds=seconds, cpu_seconds=used_cpu, loss=loss, gradient_norm=norm, bytes=used)


def say(**values: Any) -> None:
    """Sends one line of JSON to the parent process."""
    print(json.dumps(values), flush=True)


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0])
    flags.add_argument("--pairs", type=int, default=5, help="steps of each side")
    flags.add_argument("--only", choices=ESTIMATORS, help="default: both, one after the other")
    flags.add_argument("--torch_python", default=sys.executable, help="a Python that has torch")
    flags.add_argument("--device", default="cpu", help="of PyTorch: cpu or cuda")
    flags.add_argument("--json", action="store_true", help="the last line is one JSON object")
    flags.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = flags.parse_args()
    problem = from_flags(args)
    if args.serve:
        side, folder = args.serve
        if side == "jax":
            serve_jax(problem, Path(folder))
        else:
            serve_torch(problem, Path(folder), args.device)
        return
    results = {}
    for estimator in [args.only] if args.only else ESTIMATORS:
        load_before = process.load()
        same = dataclasses.replace(problem, estimator=estimator)
        results[estimator] = compare(same, args.pairs, args.torch_python, args.device)
        result = results[estimator]
        result["load"] = {"before": load_before, "after": process.load()}
        print(
            f"{estimator}: {result['seconds']:.2f} s, PyTorch {result['torch_seconds']:.2f} s: "
            f"{result['speed_ratio']:.2f} times as fast "
            f"({result['low']:.2f} to {result['high']:.2f}) "
            f"with {result['memory_ratio']:.2f} times the memory"
        )
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
