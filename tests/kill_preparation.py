"""Kills a preparation at random moments, runs it again, and compares the stores bit for bit.

    python -m tests.kill_preparation                      noise in the layout of PMEmo
    python -m tests.kill_preparation --root=DIR --name=deam    a data set of your own

Each time, the whole process group gets SIGKILL after a random number of further entries and a
random number of milliseconds. Prints one line per kill; exits with an error if an entry differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from tests import data_folders

ROOT = Path(__file__).parent.parent


def folder_of_noise(root: Path, songs: int, seconds: float) -> Path:
    """Writes PMEmo's layout: each song is different noise, rated to its end."""
    rows = []
    for i in range(songs):
        sound = np.random.default_rng(i).normal(0, 0.1, int(seconds * 22_050))
        (root / "chorus").mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "chorus" / f"{i}.wav", sound, 22_050)
        times = 15.5 + np.arange(int(2 * (seconds - 15))) / 2
        rows += [[i, at, 0.5, 0.6] for at in times]
    header = ["musicId", "frameTime", "Arousal(mean)", "Valence(mean)"]
    data_folders.table(root / "annotations" / "dynamic_annotations.csv", header, rows)
    return root


def start(name: str, root: Path, folder: Path, *more: str) -> subprocess.Popen:
    """Starts the preparation as users do, in a process group of its own."""
    command = [sys.executable, "launch.py", "--config=configs/deam_paper.py", "--mode=prepare"]
    command += [f"--config.data.name={name}", f"--config.data.root={root}", *more]
    command += [f"--config.data.prepared={folder}", f"--workdir={folder}/run"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_when(running: subprocess.Popen, moment: Callable[[], bool]) -> bool:
    """Kills the group as soon as `moment` returns true; returns False if the run ended first."""
    while running.poll() is None and not moment():
        time.sleep(0.002)
    was_running = running.poll() is None
    if was_running:
        os.killpg(running.pid, signal.SIGKILL)
    error = running.communicate()[1]
    if running.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the preparation failed: {error}")
    return was_running


def entries(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every entry of the store, by kind and key."""
    store = folder / "features"
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*.npz")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--name", default="pmemo")
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        root = options.root or folder_of_noise(work / "pmemo", options.songs, 45.0)
        began = time.monotonic()
        kill_when(start(options.name, root.resolve(), work / "whole"), lambda: False)
        took = time.monotonic() - began
        whole = entries(work / "whole")
        print(f"uninterrupted: {len(whole)} entries in {took:.1f} s")
        for kill in range(options.kills):
            present = len(entries(work / "killed"))
            enough = random.randint(present + 1, max(present + 1, len(whole) - 1))
            delay = random.uniform(0, 0.05)

            def moment(enough=enough, delay=delay) -> bool:
                if len(list((work / "killed" / "features").rglob("*.npz"))) < enough:
                    return False
                time.sleep(delay)
                return True

            kill_when(start(options.name, root.resolve(), work / "killed"), moment)
            written = entries(work / "killed")
            wrong = [name for name in written if written[name] != whole.get(name)]
            print(f"kill {kill + 1}: {len(written)} entries are present, {len(wrong)} differ")
            if wrong:
                sys.exit(f"{wrong[0]} differs")
        kill_when(start(options.name, root.resolve(), work / "killed"), lambda: False)
        if entries(work / "killed") != whole:
            sys.exit("the store differs from the uninterrupted one")
        print(f"run to the end: all {len(whole)} entries are equal, bit for bit")


if __name__ == "__main__":
    main()
