"""The GPUs that a process takes, and the error if the processes cannot be found."""

import importlib.util

import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.runtime import launcher, processes

EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_ON_NODE": "8"}


def slurm(rank, tasks_per_node, **others):
    return {"SLURM_LOCALID": str(rank), "SLURM_STEP_TASKS_PER_NODE": tasks_per_node, **others}


@pytest.mark.parametrize(
    ("environment", "own"),
    [
        (slurm(0, "1(x2)", **EIGHT), list(range(8))),  # one task a node: all, not the first
        (slurm(3, "8(x2)", **EIGHT), [3]),
        (slurm(1, "2(x2)", **EIGHT), [4, 5, 6, 7]),
        (slurm(1, "1,4(x2)", SLURM_NODEID="2", **EIGHT), [2, 3]),
        (slurm(0, "1,4(x2)", SLURM_NODEID="0", **EIGHT), list(range(8))),
        # --gpus-per-task: Slurm has divided them, and counts each share from 0 or not.
        (slurm(1, "2", CUDA_VISIBLE_DEVICES="4,5,6,7", SLURM_GPUS_ON_NODE="8"), [0, 1, 2, 3]),
        (slurm(5, "8", CUDA_VISIBLE_DEVICES="0", SLURM_GPUS_ON_NODE="8"), [0]),
        (slurm(1, "2", SLURM_GPUS_ON_NODE="4"), [2, 3]),
        (slurm(0, "", SLURM_NTASKS="1", CUDA_VISIBLE_DEVICES="0,1"), [0, 1]),
        (slurm(1, "", SLURM_NTASKS="4", SLURM_STEP_NUM_NODES="2", **EIGHT), [4, 5, 6, 7]),
        (
            slurm(0, "", SLURM_NTASKS="4", SLURM_STEP_NODELIST="gpu[01-03],head", **EIGHT),
            list(range(8)),
        ),
        (
            {
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
                "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
            },
            [2, 3],
        ),
        (slurm(0, "1", CUDA_VISIBLE_DEVICES="-1"), None),
        (EIGHT, None),
    ],
)
def test_the_gpus_of_a_host_are_divided_among_its_processes(environment, own):
    assert launcher.local_gpus(environment) == own


def test_gpus_that_cannot_be_divided_are_refused():
    with pytest.raises(UserError, match="8 GPUs cannot be divided among 3 processes"):
        launcher.local_gpus(slurm(0, "3", **EIGHT))


def test_a_pod_without_the_package_kubernetes_names_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(UserError, match=r"pip install 'jax\[k8s\]', or give --coordinator=HOST"):
        processes.initialize_distributed("auto", None, None)
