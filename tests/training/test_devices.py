"""The same training on any number of devices and processes, and what is refused."""

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


def started(devices: int, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.device_runs", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)},
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def written_by(folder: Path, groups: dict) -> dict:
    """{name: what `device_runs` wrote}, of processes that run at the same time."""
    running = [started(n, str(folder / name), *given) for name, (n, given) in groups.items()]
    for one in running:
        _, errors = one.communicate(timeout=500)
        assert one.returncode == 0, errors
    return {name: json.loads((folder / name).read_text()) for name in groups}


def same(run: dict, one: dict, rtol: float) -> None:
    np.testing.assert_allclose(run["losses"], one["losses"], rtol=rtol)
    np.testing.assert_allclose(run["weights"], one["weights"], rtol=rtol)


def test_any_number_of_devices_and_processes_trains_alike(tmp_path):
    """One test, not four: what they would share takes a minute, and they may run in two processes.

    Processes of its own because the number of devices is fixed when JAX starts.
    """
    alone = written_by(tmp_path, {"alone": (8, ())})["alone"]
    restarted, streamed = alone.pop("restarted"), alone.pop("streamed")
    for name, run in alone.items():
        dtype, order, devices = name.split()
        same(run, alone[f"{dtype} {order} 1"], TOLERANCE[dtype])
        assert run["finite"] == [f"({device_runs.TASKS}, 2)", f"({device_runs.TASKS},)"]
        assert run["all_finite"]
        # One all-reduce a step, and not in a loop.
        assert run["collectives"] == ([] if devices == "1" else [["all-reduce", 1]]), name
    one = alone["float64 second_order 1"]
    assert len(set(one["losses"])) == device_runs.STEPS
    # Begun on four devices and, from a checkpoint, ended on two.
    same(restarted, one, 1e-11)
    # In one call, of songs in host memory; still one all-reduce a meta-step.
    same(streamed, alone["float64 second_order 4"], 1e-12)
    assert streamed["collectives"] == [["all-reduce", device_runs.STEPS]]

    address = f"--coordinator=localhost:{free_port()}"
    pair = {str(i): (4, (address, "--processes=2", f"--process_id={i}")) for i in range(2)}
    for said in written_by(tmp_path, pair).values():
        same(said["float64 second_order 8"], one, 1e-11)
        assert said["float64 second_order 8"]["collectives"] == [["all-reduce", 1]]
        agree, data, config = said["disagreement"]
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
        (16, 7, 2, Layout(2, 2, 4)),  # 4 + 4, not 7 + 1 and 6 places of padding
    ],
)
def test_layouts(meta_batch, tasks_per_device, devices, layout):
    found = task_layout(meta_batch, tasks_per_device, FakeMesh(devices))
    assert found == layout
    assert found.devices * found.slots_per_device >= meta_batch


def test_more_devices_than_tasks_are_refused():
    with pytest.raises(UserError, match=r"^tasks\.meta_batch is 3, fewer than the 4 devices"):
        task_layout(3, 0, FakeMesh(4))


@pytest.mark.parametrize(
    "given",
    [
        ("", 2, None),
        ("auto", 2, 0),
        ("host:1", None, 0),
        ("host:1", 2, 2),
        ("host", 2, 0),
    ],
)
def test_contradictions_of_processes_are_refused(given):
    with pytest.raises(UserError, match="HOST:PORT"):
        processes.initialize_distributed(*given)


def test_a_digest_tells_values_shapes_and_types_apart():
    zeros = np.zeros(4, np.float32)
    others = (zeros + 1, zeros.reshape(2, 2), zeros.view(np.int32), [zeros, zeros])
    assert len({processes.digest(x) for x in (zeros, *others)}) == 5
    assert processes.digest(zeros) == processes.digest(jax.numpy.zeros(4))
    experiment = experiment_from_config(tiny.get_config().to_dict())
    again = experiment_from_config(tiny.get_config().to_dict())
    assert processes.digest(experiment) == processes.digest(again)
    changed = dataclasses.replace(experiment, seed=7)
    assert processes.digest(experiment) != processes.digest(changed)
