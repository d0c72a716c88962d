"""Kills a training run at random moments, restarts it, and compares the weights bit for bit.

    python -m tests.kill_training                              20 rounds of tests/killed.py
    python -m tests.kill_training --config=configs/demo.py --rounds=3

A round is a run in its own workdir, stopped up to `--kills` times by SIGKILL or SIGTERM, at times
drawn uniformly from the duration of the uninterrupted run, and then run to its end. Every stage's
last and best checkpoint (weights, outer state, rates, counters), the results and the log must equal
those of the uninterrupted run. Exits with an error if they differ, if a run fails, or if a run
reports a damaged checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parent.parent
RUN_AGAIN = 75


def start(config: str, workdir: Path, prepared: Path, cache: Path) -> subprocess.Popen:
    """Starts training as users do."""
    command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}"]
    command += [f"--config.data.prepared={prepared}", f"--compile_cache={cache}"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(running: subprocess.Popen, number: signal.Signals, after_s: float) -> str:
    """Sends the signal after a time; returns a description, "" if the run ended first.

    Raises:
      RuntimeError: the run ended with an unexpected exit code or error.
    """
    try:
        error = running.communicate(timeout=after_s)[1]
        expected, description = {0}, ""
    except subprocess.TimeoutExpired:
        running.send_signal(number)
        error = running.communicate()[1]
        # -number if the signal came before the program had a handler; 0 if all was done.
        expected = {-number, 0} if number == signal.SIGKILL else {RUN_AGAIN, -number, 0}
        description = f"{number.name[3:]} at {after_s:.1f} s: {running.returncode}"
    if running.returncode not in expected or "Traceback" in error or "damaged" in error:
        raise RuntimeError(f"exit {running.returncode}, {description or 'not stopped'}: {error}")
    return description


def digest(workdir: Path) -> dict[str, str]:
    """Returns hashes of each stage's last and best checkpoint, of the results and of the log."""
    hashes = {}
    for stage in sorted((workdir / "checkpoints").iterdir()):
        steps = sorted((path for path in stage.iterdir()), key=lambda path: int(path.name))
        validated = [path for path in steps if (path / "metrics").exists()]
        best = max(validated, key=lambda path: (_selection(path), int(path.name)))
        hashes[f"{stage.name}, last"] = _state_hash(steps[-1])
        hashes[f"{stage.name}, best"] = _state_hash(best)
    hashes["results.json"] = hashlib.sha256((workdir / "results.json").read_bytes()).hexdigest()
    merged: dict = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)  # if a step ran twice, the later row wins
        merged.setdefault(f"{row['stage']} {row['step']}", {}).update(row)
    log = json.dumps(merged, sort_keys=True)
    hashes["metrics.jsonl"] = hashlib.sha256(log.encode()).hexdigest()
    return hashes


def _selection(checkpoint: Path) -> float:
    return json.loads((checkpoint / "metrics" / "metrics").read_text())["selection"]


def _state_hash(checkpoint: Path) -> str:
    whole = hashlib.sha256(checkpoint.name.encode())
    with ocp.StandardCheckpointer() as reader:
        state = reader.restore((checkpoint / "default").absolute())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        whole.update(str(path).encode() + np.asarray(leaf).tobytes())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="tests/killed.py")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3, help="maximum per round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)

        def run(name: str) -> subprocess.Popen:
            return start(options.config, work / name, work / "prepared", work / "compiled")

        # The second run is timed: like the killed runs, it has the data and compiled programs.
        for name in ("first", "whole"):
            began = time.monotonic()
            stop(run(name), signal.SIGTERM, 1e6)
            took = time.monotonic() - began
        whole = digest(work / "whole")
        if digest(work / "first") != whole:
            sys.exit("two uninterrupted runs differ: nothing can be compared")
        print(f"uninterrupted: {took:.1f} s; compared: {'; '.join(whole)}\n")
        print("| round | signal, moment, exit code | equal |\n|---|---|---|")
        for number in range(1, options.rounds + 1):
            stops = []
            for _ in range(rng.randint(1, options.kills)):
                drawn = rng.choice((signal.SIGKILL, signal.SIGTERM)), rng.uniform(0, took)
                stops.append(stop(run(f"killed{number}"), *drawn) or "ended before")
            stop(run(f"killed{number}"), signal.SIGTERM, 1e6)
            hashes = digest(work / f"killed{number}")
            differ = [name for name in whole if hashes[name] != whole[name]]
            print(f"| {number} | {'; '.join(stops)} | {'no' if differ else 'yes'} |", flush=True)
            if differ:
                sys.exit(f"these differ: {'; '.join(differ)}")


if __name__ == "__main__":
    main()
