"""Compares exact meta-gradients with plain PyTorch, higher and torchopt.

    python -m benchmarks.libraries [--steps 1 10 100] [--torch_python PYTHON] [--out FILE.md]

Two problems, in both frameworks the same losses: a network on scikit-learn's digits, and a small
transformer. Every library and number of inner steps K runs in a process of its own. In float64 the
gradients are compared; in float32 time and memory are measured: the median of some calls after one,
and the peak that one call adds to what the process held before it (libraries, weights, the
compiled program). Of this library, the compiler's figure of temporary memory is given too, which
repeats exactly.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import process
from benchmarks.library_losses import LOSSES, RATE
from dsaml_jax.meta import ENGINES, Engine, InnerLoop, MetaParams, Problem, Task, Unrolled
from dsaml_jax.reports.tables import MIB

THEIRS = ("torch", "higher", "torchopt")
OURS = (*ENGINES, "mixed, chunked")
SYMBOLS, WIDTH, LENGTH, BLOCKS = 16, 64, 64, 2


def problems(folder: Path) -> None:
    """Writes weights, support and query of both problems."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    x, label = load_digits(return_X_y=True)
    order = rng.permutation(len(x))[:200]
    x, y = x[order] / 16, np.eye(10)[label[order]]
    shapes = [(64, 128), (128,), (128, 10), (10,)]
    _write(folder / "digits.npz", rng, shapes, (x[:100], y[:100]), (x[100:], y[100:]))
    tokens = rng.integers(SYMBOLS, size=(2, 8, LENGTH + 1))
    support, query = ((one_hot[:, :-1], one_hot[:, 1:]) for one_hot in np.eye(SYMBOLS)[tokens])
    block = [(WIDTH, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, WIDTH)]
    shapes = [(SYMBOLS, WIDTH), *(shape for _ in range(BLOCKS) for shape in block)]
    _write(folder / "transformer.npz", rng, shapes, support, query)


def _write(path: Path, rng, shapes: Sequence[tuple[int, ...]], support, query) -> None:
    params = [rng.normal(size=shape) / math.sqrt(shape[0]) for shape in shapes]
    named = {f"param{i:02}": value for i, value in enumerate(params)}
    batches = zip(("support", "query"), (support, query), strict=True)
    named |= {f"{name}{i}": value for name, pair in batches for i, value in enumerate(pair)}
    np.savez(path, **named)


def measure_ours(library: str, problem: str, steps: int, repeats: int, folder: Path) -> dict:
    """Measures an engine of this library in this process."""
    data = np.load(folder / f"{problem}.npz")

    def arrays(prefix: str, dtype: str) -> list[jax.Array]:
        names = sorted(name for name in data.files if name.startswith(prefix))
        return [jnp.asarray(data[name], dtype) for name in names]

    def loss(params, batch, key):
        return LOSSES[problem](jnp, params, *batch)

    chunked = Engine(mixed=True, chunk=round(math.sqrt(steps)))
    estimator = Unrolled(engine=ENGINES.get(library, chunked))
    inner = InnerLoop(steps, optax.sgd(RATE))

    @jax.jit
    def gradient(params, task):
        arguments = Problem(loss, loss), inner, MetaParams(params, {}), task, jax.random.key(0)
        return estimator(*arguments)[1].params

    def compiled(dtype: str):
        params = arrays("param", dtype)
        task = Task(arrays("support", dtype), arrays("query", dtype))
        program = gradient.lower(params, task).compile()
        return program, lambda: jax.block_until_ready(program(params, task))

    program, single = compiled("float32")
    before = process.memory()
    process.reset_peak_memory()
    single()
    added = process.peak_memory() - before
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        single()
        seconds.append(time.perf_counter() - start)
    with jax.enable_x64(True):
        exact = np.concatenate([np.ravel(g) for g in compiled("float64")[1]()])
    np.save(folder / "gradient.npy", exact)
    temporary = program.memory_analysis().temp_size_in_bytes
    return {"seconds": float(np.median(seconds)), "bytes": added, "temporary": temporary}


def run(
    library: str, problem: str, steps: int, repeats: int, folder: Path, torch_python: str
) -> tuple[dict[str, Any], np.ndarray]:
    """Measures a library in a process of its own; returns its figures and its gradient."""
    python, module = sys.executable, "benchmarks.libraries"
    if library in THEIRS:
        python, module = torch_python, "benchmarks.libraries_torch"
    flags = {"problem": problem, "steps": steps, "repeats": repeats, "folder": folder}
    command = [python, "-m", module, f"--library={library}"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    # Threads that spin while they wait would slow down whatever else runs.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {ran.stderr.strip().splitlines()[-1]}")
    return json.loads(ran.stdout.splitlines()[-1]), np.load(folder / "gradient.npy")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the figures as Markdown."""
    lines = [
        "| problem | K | library | relative difference | ms | MiB added | MiB by the compiler |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        temporary = f"{row['temporary'] / MIB:.1f}" if "temporary" in row else "–"
        lines.append(
            f"| {row['problem']} | {row['steps']} | {row['library']} | {row['difference']:.0e} | "
            f"{row['seconds'] * 1e3:.1f} | {row['bytes'] / MIB:.1f} | {temporary} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--libraries", nargs="+", default=[*THEIRS, *OURS])
    parser.add_argument("--out", type=Path)
    for name in ("library", "problem", "folder"):  # of a process that measures
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.library:
        folder = Path(flags.folder)
        (steps,) = flags.steps
        print(json.dumps(measure_ours(flags.library, flags.problem, steps, flags.repeats, folder)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        problems(Path(name))
        for problem in LOSSES:
            for steps in flags.steps:
                reference = None
                for library in flags.libraries:
                    figures, gradient = run(
                        library, problem, steps, flags.repeats, Path(name), flags.torch_python
                    )
                    reference = gradient if reference is None else reference
                    difference = np.linalg.norm(gradient - reference) / np.linalg.norm(reference)
                    rows.append(
                        {"problem": problem, "steps": steps, "library": library}
                        | figures
                        | {"difference": difference}
                    )
                    print(table(rows[-1:]).splitlines()[-1], flush=True)
    if flags.out:
        flags.out.write_text(table(rows))


if __name__ == "__main__":
    main()
