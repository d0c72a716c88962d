"""Kills a training run at random moments, starts it again, and compares the weights bit for bit.

    python -m tests.kill_training                              20 rounds of tests/killed.py
    python -m tests.kill_training --config=configs/demo.py --rounds=3

A round is a run in a workdir of its own, stopped up to `--kills` times, by SIGKILL or SIGTERM, at
moments drawn over the time that the uninterrupted run took, and at last left to end. Every
stage's last and best checkpoint (weights, outer state, rates, counters), the results and the log
must equal those of the uninterrupted run. Ends with an error where they do not, where a run fails,
or where one says that a checkpoint is damaged.
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
    """Training as users start it."""
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
    """Sends the signal after a time; tells of it, "" where the run had ended before.

    Raises:
      RuntimeError: the run ended otherwise than it should.
    """
    try:
        error = running.communicate(timeout=after_s)[1]
        expected, told = {0}, ""
    except subprocess.TimeoutExpired:
        running.send_signal(number)
        error = running.communicate()[1]
        # By the signal itself where it came before the program had a handler; 0 where all was done.
        expected = {-number, 0} if number == signal.SIGKILL else {RUN_AGAIN, -number, 0}
        told = f"{number.name[3:]} at {after_s:.1f} s: {running.returncode}"
    if running.returncode not in expected or "Traceback" in error or "damaged" in error:
        raise RuntimeError(f"exit {running.returncode}, {told or 'not stopped'}: {error}")
    return told


def digest(workdir: Path) -> dict[str, str]:
    """Hashes of each stage's last and best checkpoint, of the results and of the log."""
    found = {}
    for stage in sorted((workdir / "checkpoints").iterdir()):
        steps = sorted((path for path in stage.iterdir()), key=lambda path: int(path.name))
        validated = [path for path in steps if (path / "metrics").exists()]
        best = max(validated, key=lambda path: (_selection(path), int(path.name)))
        found[f"{stage.name}, last"] = _state_hash(steps[-1])
        found[f"{stage.name}, best"] = _state_hash(best)
    found["results.json"] = hashlib.sha256((workdir / "results.json").read_bytes()).hexdigest()
    merged: dict = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)  # of a step that was run twice the later
        merged.setdefault(f"{row['stage']} {row['step']}", {}).update(row)
    log = json.dumps(merged, sort_keys=True)
    found["metrics.jsonl"] = hashlib.sha256(log.encode()).hexdigest()
    return found


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
    parser.add_argument("--kills", type=int, default=3, help="of each round, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)

        def run(name: str) -> subprocess.Popen:
            return start(options.config, work / name, work / "prepared", work / "compiled")

        for name in ("first", "whole"):  # the second finds data and programs, as the killed do
            began = time.monotonic()
            stop(run(name), signal.SIGTERM, 1e6)
            took = time.monotonic() - began
        whole = digest(work / "whole")
        if digest(work / "first") != whole:
            sys.exit("two uninterrupted runs differ: nothing can be compared")
        print(f"uninterrupted: {took:.1f} s; compared: {'; '.join(whole)}\n")
        print("| round | signal, moment, exit code | equal |\n|---|---|---|")
        for number in range(1, options.rounds + 1):
            told = []
            for _ in range(chance.randint(1, options.kills)):
                drawn = chance.choice((signal.SIGKILL, signal.SIGTERM)), chance.uniform(0, took)
                told.append(stop(run(f"killed{number}"), *drawn) or "ended before")
            stop(run(f"killed{number}"), signal.SIGTERM, 1e6)
            found = digest(work / f"killed{number}")
            differ = [name for name in whole if found[name] != whole[name]]
            print(f"| {number} | {'; '.join(told)} | {'no' if differ else 'yes'} |", flush=True)
            if differ:
                sys.exit(f"these differ: {'; '.join(differ)}")


if __name__ == "__main__":
    main()
