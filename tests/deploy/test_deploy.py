"""Reactions of the launch files to each exit code, and their validity."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def sbatch(tmp_path):
    """Returns run(code of srun, restarts) -> (exit code, arguments of scontrol)."""
    for name, line in (("srun", "exit $CODE"), ("scontrol", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)

    def run(code, restarts=0):
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CODE": str(code),
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restarts),
            "REQUEUE_AT_MOST": "3",
        }
        command = ["bash", DEPLOY / "slurm.sh", "configs/base.py", "runs/x"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        return ran.returncode, ran.stdout.strip()

    return run


@pytest.mark.parametrize("code", [75, 134, 137, 143])
def test_slurm_requeues_codes_from_which_the_same_command_resumes(sbatch, code):
    assert sbatch(code) == (code, "requeue 7")
    assert sbatch(code, restarts=2) == (code, "requeue 7")
    assert sbatch(code, restarts=3) == (code, "")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_slurm_requeues_no_other_code(sbatch, code):
    assert sbatch(code) == (code, "")


def test_the_jobset_fails_on_1_only():
    jobset = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    [rule] = job["podFailurePolicy"]["rules"]
    [container] = job["template"]["spec"]["containers"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert rule["onExitCodes"]["values"] == [1]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert [(r["action"], r["onJobFailureReasons"]) for r in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
    # JobSet's webhook, not its schema, says how a rule may be named.
    assert all(re.fullmatch(r"[A-Za-z]([\w,:]*\w)?", r["name"]) for r in policy["rules"])
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert set(mounted) == {each["name"] for each in job["template"]["spec"]["volumes"]}
    assert mounted["shm"] == "/dev/shm" and set(container["resources"]["requests"]) == {
        "cpu",
        "memory",
    }


def test_the_jobset_matches_its_schema():
    """With `JOBSET_CRD` the path of jobset.x-k8s.io_jobsets.yaml; unknown fields are errors."""
    jsonschema = pytest.importorskip("jsonschema")
    if "JOBSET_CRD" not in os.environ:
        pytest.skip("JOBSET_CRD is not set")
    definition = yaml.safe_load(Path(os.environ["JOBSET_CRD"]).read_text())
    [version] = [v for v in definition["spec"]["versions"] if v["name"] == "v1alpha2"]
    schema = json.loads(json.dumps(version["schema"]["openAPIV3Schema"]))
    _close(schema)
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    jobset = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    errors = jsonschema.Draft7Validator(schema).iter_errors(jobset)
    assert [error.message for error in errors] == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_knows_every_field_of_the_job(tmp_path):
    """kubectl drops fields that it does not know when it edits a file without a server."""
    jobset = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    template = jobset["spec"]["replicatedJobs"][0]["template"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hosts"}} | template

    def edited(job):
        (tmp_path / "job.json").write_text(json.dumps(job))
        command = ["kubectl", "set", "env", "--local", "-f", "job.json", "X=", "-o", "json"]
        return json.loads(subprocess.check_output(command, cwd=tmp_path))

    assert set(_paths(job)) <= set(_paths(edited(job)))
    job["spec"]["podFailurePolicy"]["unknown"] = 1
    assert "/spec/podFailurePolicy/unknown" not in set(_paths(edited(job)))


def _paths(value, path=""):
    """Yields the path of every field."""
    if isinstance(value, dict | list):
        for key, element in value.items() if isinstance(value, dict) else enumerate(value):
            yield f"{path}/{key}"
            yield from _paths(element, f"{path}/{key}")


def test_the_image_installs_requirements_from_a_layer_without_code():
    """Else every change of the code would install them again."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    install = next(i for i, line in enumerate(lines) if line.startswith("RUN "))
    assert [line for line in lines[:install] if line.startswith("COPY ")] == [
        "COPY requirements.txt ./"
    ]
    assert all((DEPLOY.parent / name).exists() for names in copied for name in names)


def _close(schema):
    """Makes unknown fields errors, and drops Kubernetes's extensions of JSON schema."""
    if isinstance(schema, list):
        for element in schema:
            _close(element)
    if isinstance(schema, dict):
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        if isinstance(schema.get("properties"), dict) and not open_ended:
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("anyOf", None)
            schema.pop("pattern", None)
        for element in schema.values():
            _close(element)


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_pass_shellcheck(script):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    assert shellcheck is not None, "install requirements-dev.txt"
    ran = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
