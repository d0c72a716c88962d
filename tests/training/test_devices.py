"""Training is the same on any number of devices and processes; invalid layouts are rejected."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.errors import UserError
from dsaml_jax.runtime import processes
from dsaml_jax.training.devices import Layout, task_layout
from tests import device_runs, tiny

ROOT = Path(__file__).parents[2]
TOLERANCE = {"float64": 1e-11, "float32": 1e-5}
COMBINATIONS = ("--all",) if os.environ.get("DSAML_ALL_DEVICE_RUNS") else ()


def started(devices: int, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.device_runs", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)},
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def written_by(folder: Path, groups: dict) -> dict:
    """Runs `device_runs` in concurrent processes; returns {name: what it wrote}."""
    running = [started(n, str(folder / name), *flags) for name, (n, flags) in groups.items()]
    for process in running:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
    return {name: json.loads((folder / name).read_text()) for name in groups}


def same(run: dict, one: dict, rtol: float) -> None:
    np.testing.assert_allclose(run["losses"], one["losses"], rtol=rtol)
    np.testing.assert_allclose(run["weights"], one["weights"], rtol=rtol)


def test_training_does_not_depend_on_the_number_of_devices_and_processes(tmp_path):
    """Checks devices, restarts, streaming and processes in one test, which share their programs.

    Runs in subprocesses because the number of devices is fixed when JAX starts. With
    DSAML_ALL_DEVICE_RUNS set, it also checks first order, float32, and two devices.
    """
    alone = written_by(tmp_path, {"alone": (8, COMBINATIONS)})["alone"]
    restarted, streamed = alone.pop("restarted"), alone.pop("streamed")
    stage = [alone.pop(f"listeners {devices}") for devices, _ in device_runs.LISTENERS_PLANS]
    for run in stage[1:]:
        same(run, stage[0], 1e-11)
    assert len(set(stage[0]["losses"])) == device_runs.STEPS
    for name, run in alone.items():
        dtype, order, devices = name.split()
        same(run, alone[f"{dtype} {order} 1"], TOLERANCE[dtype])
        assert run["finite"] == [f"({device_runs.TASKS}, 2)", f"({device_runs.TASKS},)"]
        assert run["all_finite"]
        # One all-reduce per step, and not in a loop.
        assert run["collectives"] == ([] if devices == "1" else [["all-reduce", 1]]), name
    one = alone["float64 second_order 1"]
    assert len(set(one["losses"])) == device_runs.STEPS
    # Started on four devices and resumed from a checkpoint on eight.
    same(restarted, one, 1e-11)
    # In one call, with songs in host memory; still one all-reduce per meta-step.
    same(streamed, alone["float64 second_order 4"], 1e-12)
    assert streamed["collectives"] == [["all-reduce", device_runs.STEPS]]

    address = f"--coordinator=localhost:{free_port()}"
    pair = {str(i): (4, (address, "--processes=2", f"--process_id={i}")) for i in range(2)}
    for run in written_by(tmp_path, pair).values():
        same(run["float64 second_order 8"], one, 1e-11)
        assert run["float64 second_order 8"]["collectives"] == [["all-reduce", 1]]
        agree, data, config = run["disagreement"]
        assert agree == ""
        assert data.startswith("process 1 of 2 has different data than process 0")
        assert config.startswith("process 1 of 2 has different config than process 0")


class FakeMesh:
    def __init__(self, size: int):
        self.devices = np.zeros(size)


@pytest.mark.parametrize(
    ("meta_batch", "tasks_per_device", "devices", "layout"),
    [
        (16, 0, 1, Layout(1, 1, 16)),
        (16, 1, 1, Layout(1, 16, 1)),
        (16, 0, 8, Layout(8, 1, 2)),
        (9, 0, 8, Layout(8, 1, 2)),
        (16, 3, 2, Layout(2, 3, 3)),
        (16, 7, 2, Layout(2, 2, 4)),  # rounds of 4 + 4, rather than 7 + 1 with 6 slots of padding
    ],
)
def test_layouts_hold_all_tasks_with_little_padding(meta_batch, tasks_per_device, devices, layout):
    result = task_layout(meta_batch, tasks_per_device, FakeMesh(devices))
    assert result == layout
    assert result.devices * result.slots_per_device >= meta_batch


def test_more_devices_than_tasks_are_rejected():
    with pytest.raises(UserError, match=r"^tasks\.meta_batch is 3, fewer than the 4 devices"):
        task_layout(3, 0, FakeMesh(4))


@pytest.mark.parametrize(
    "arguments",
    [
        ("", 2, None),
        ("auto", 2, 0),
        ("host:1", None, 0),
        ("host:1", 2, 2),
        ("host", 2, 0),
        ("host:0", 2, 1),
        ("host:99999", 2, 1),
        ("host:\u0661", 2, 1),
    ],
)
def test_invalid_process_flags_are_rejected(arguments):
    with pytest.raises(UserError, match="HOST:PORT"):
        processes.initialize_distributed(*arguments)


def test_digests_depend_on_values_shapes_and_types():
    zeros = np.zeros(4, np.float32)
    others = (zeros + 1, zeros.reshape(2, 2), zeros.view(np.int32), [zeros, zeros])
    assert len({processes.digest(x) for x in (zeros, *others)}) == 5
    assert processes.digest(zeros) == processes.digest(jax.numpy.zeros(4))
    experiment = experiment_from_config(tiny.get_config().to_dict())
    again = experiment_from_config(tiny.get_config().to_dict())
    assert processes.digest(experiment) == processes.digest(again)
    changed = dataclasses.replace(experiment, seed=7)
    assert processes.digest(experiment) != processes.digest(changed)
