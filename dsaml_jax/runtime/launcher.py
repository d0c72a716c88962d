"""Detection of a run's processes and GPUs from Slurm, Open MPI or Kubernetes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from dsaml_jax.errors import UserError

_VISIBLE = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"


def check_detectable(environment: Mapping[str, str]) -> None:
    """Raises UserError if --coordinator=auto cannot work in a pod because a package is missing."""
    by_job = "SLURM_JOB_ID" in environment or "OMPI_MCA_orte_hnp_uri" in environment
    in_pod = "KUBERNETES_SERVICE_HOST" in environment
    if in_pod and not by_job and importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "--coordinator=auto needs the package kubernetes in a pod, to find the other "
            "processes: pip install 'jax[k8s]', or give --coordinator=HOST:PORT, --processes and "
            "--process_id, as deploy/kubernetes.yaml does."
        )


def local_gpus(environment: Mapping[str, str]) -> list[int] | None:
    """Returns the indices of the visible GPUs that belong to this process.

    JAX gives each process of a Slurm or Open MPI job one GPU, the one of its local rank; a job with
    fewer processes than GPUs would leave the others idle. Here the processes of a host divide its
    GPUs evenly. If the scheduler has already divided them, each process takes all that it sees.

    Returns:
      None if there is no launcher or no GPU; JAX then decides.

    Raises:
      UserError: the GPUs cannot be divided evenly.
    """
    place = _place(environment)
    visible = _visible_gpus(environment)
    if place is None or not visible:
        return None
    rank, processes = place
    of_host = _count(environment, "SLURM_GPUS_ON_NODE") or visible
    if processes == 1 or visible < of_host or visible == 1:
        return list(range(visible))
    if visible % processes or rank >= processes:
        raise UserError(
            f"{visible} GPUs cannot be divided among {processes} processes of a host; start as "
            "many processes as there are GPUs, or one for all of them (Slurm: --ntasks-per-node)."
        )
    share = visible // processes
    return list(range(rank * share, (rank + 1) * share))


def _place(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Returns this process's number on its host, and how many processes the host has."""
    rank = _count(environment, "SLURM_LOCALID")
    if rank is not None:
        return rank, _slurm_processes(environment)
    rank = _count(environment, "OMPI_COMM_WORLD_LOCAL_RANK")
    if rank is not None:
        return rank, _count(environment, "OMPI_COMM_WORLD_LOCAL_SIZE") or 1
    return None


def _slurm_processes(environment: Mapping[str, str]) -> int:
    """Returns the tasks of this step on this node, from a list such as "8(x2),4"."""
    listed = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = [
        int(tasks)
        for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", listed)
        for _ in range(int(times or 1))
    ]
    if counts:
        return counts[min(_count(environment, "SLURM_NODEID") or 0, len(counts) - 1)]
    tasks = _count(environment, "SLURM_NTASKS") or 1
    nodes = _count(environment, "SLURM_STEP_NUM_NODES") or _count(environment, "SLURM_NNODES")
    return -(-tasks // (nodes or _hosts(environment.get("SLURM_STEP_NODELIST", ""))))


def _hosts(nodes: str) -> int:
    """Returns how many hosts a list such as "gpu[01-03,7],head" names; at least 1."""
    hosts = 0
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        inside = re.search(r"\[(.*)\]", name)
        for part in inside[1].split(",") if inside else [name]:
            ends = re.fullmatch(r"(\d+)-(\d+)", part) if inside else None
            hosts += int(ends[2]) - int(ends[1]) + 1 if ends else 1
    return max(hosts, 1)


def _visible_gpus(environment: Mapping[str, str]) -> int:
    for name in _VISIBLE:
        if name in environment:
            return sum(gpu.strip() not in ("", "-1") for gpu in environment[name].split(","))
    on_host = _count(environment, "SLURM_GPUS_ON_NODE")
    return on_host if on_host is not None else len(list(Path("/dev").glob("nvidia[0-9]*")))


def _count(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else None
