"""No process of a run waits for another that has failed, was stopped, or is lost."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def ended(tmp_path: Path, mishap: str, *flags: str) -> tuple[list[int], list[str]]:
    """Exit codes and standard error of two processes, of which the second suffers a mishap."""
    common = f"--coordinator=localhost:{free_port()}", "--processes=2", f"--workdir={tmp_path}/run"
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.runtime.two_processes", mishap, *common),
                *(f"--process_id={i}", f"--compile_cache={tmp_path}/compiled", *flags),
            ],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        said = [one.communicate(timeout=500)[1] for one in running]
    finally:
        for one in running:
            one.kill()
    return [one.returncode for one in running], said


DEMO = ("--config=demo",)
NO_DATA = "--config=deam_pdmer", "--config.data.root=no/such/folder"


@pytest.mark.parametrize(
    ("mishap", "flags", "code", "sentence"),
    [
        ("input", DEMO, 1, "process 1 of 2: labels.csv has no column song_id.\n"),
        ("training", DEMO, 75, "stopped by SIGTERM; finished work is kept"),
        # Given to both processes: before they are connected, and afterwards.
        ("none", (*DEMO, "--config.inner.stesp=3"), 1, "inner has no field 'stesp'; did you mean"),
        ("none", NO_DATA, 1, "does not exist; data.root must be"),
    ],
)
def test_all_processes_end_with_the_code_and_sentence_of_one(
    tmp_path, mishap, flags, code, sentence
):
    codes, said = ended(tmp_path, mishap, "--stop_within=0.1", *flags)
    assert codes == [code, code], said
    assert sentence in said[0]
    for lines in map(str.splitlines, said):
        assert sum(line.startswith("two_processes.py: ") for line in lines) == 1, lines
    assert "Traceback" not in "".join(said)


def test_a_lost_process_ends_the_others_which_can_resume(tmp_path):
    codes, said = ended(tmp_path, "lost", "--heartbeat_timeout=8", *DEMO)
    assert codes == [75, -9], said
    assert "the other processes of this run are lost" in said[0]
