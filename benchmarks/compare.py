"""Our meta-step beside PyTorch's: python -m benchmarks.compare --json

Both sides take the same weights and the same songs, each in a process of its own, and take turns:
what else the machine does meets both alike. The ratio is the median over pairs of steps, with the
lowest and the highest pair. Without dropout the first steps' query loss and meta-gradient norm must
agree, and are printed. Memory is what a process needs at the peak of a step beyond what it had
before the first one (libraries, songs, weights, what compiling left).
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

import numpy as np

from benchmarks import process
from benchmarks.problem import Problem, from_flags, load, parser

ESTIMATORS = ("first_order", "second_order")


class Side:
    """A process that takes a meta-step when it is told to."""

    def __init__(self, python: str, name: str, problem: Problem, folder: Path, device: str):
        command = [python, "-m", "benchmarks.compare", "--serve", name, str(folder)]
        command += [f"--{key}={value}" for key, value in vars(problem).items()]
        command += ["--device", device]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Threads that spin while they wait would starve the side that has its turn.
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )
        self.ready = self._read()

    def step(self) -> dict:
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._process.args)} ended; its message is above.")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(problem: Problem, pairs: int, torch_python: str, device: str = "cpu") -> dict:
    """Takes turns for `pairs` steps; see the module."""
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
    memory = [max(side["bytes"] for side in each) for each in zip(first, *steps, strict=True)]
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
    """Compiles, writes weights and songs for the other side, and steps on demand."""
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
        process.forget_peak_memory()
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
        process.forget_peak_memory()
        start, used_cpu = time.perf_counter(), time.process_time()
        loss, norm = torch_baseline.meta_step(model, optimizer, tasks, problem)
        seconds = time.perf_counter() - start
        used_cpu = time.process_time() - used_cpu
        on_cpu = device == "cpu"
        used = process.peak_memory() - before if on_cpu else torch.cuda.max_memory_allocated()
        say(seconds=seconds, cpu_seconds=used_cpu, loss=loss, gradient_norm=norm, bytes=used)


def say(**values) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    flags = parser(__doc__.splitlines()[0])
    flags.add_argument("--pairs", type=int, default=5, help="steps of each side")
    flags.add_argument("--only", choices=ESTIMATORS, help="default: both, one after the other")
    flags.add_argument("--torch_python", default=sys.executable, help="a Python that has torch")
    flags.add_argument("--device", default="cpu", help="of PyTorch: cpu or cuda")
    flags.add_argument("--json", action="store_true", help="the last line is one JSON object")
    flags.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = flags.parse_args()
    problem = from_flags(given)
    if given.serve:
        side, folder = given.serve
        if side == "jax":
            serve_jax(problem, Path(folder))
        else:
            serve_torch(problem, Path(folder), given.device)
        return
    results = {}
    for estimator in [given.only] if given.only else ESTIMATORS:
        load_before = process.load()
        same = dataclasses.replace(problem, estimator=estimator)
        results[estimator] = compare(same, given.pairs, given.torch_python, given.device)
        results[estimator]["load"] = {"before": load_before, "after": process.load()}
        found = results[estimator]
        print(
            f"{estimator}: {found['seconds']:.2f} s, PyTorch {found['torch_seconds']:.2f} s: "
            f"{found['speed_ratio']:.2f} times as fast ({found['low']:.2f} to {found['high']:.2f}) "
            f"with {found['memory_ratio']:.2f} times the memory"
        )
    if given.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
