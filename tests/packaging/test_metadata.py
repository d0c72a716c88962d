"""The metadata of the package agree with each other and with the requirements files."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import dsaml_jax

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = set(PROJECT["dependencies"])
EXTRAS = PROJECT["optional-dependencies"]


def extra(name: str) -> set[str]:
    """Returns the requirements of an extra, those of the extras that it names included."""
    requirements = set()
    for requirement in EXTRAS[name]:
        ours = re.fullmatch(r"dsaml_jax\[([\w,]+)\]", requirement)
        if ours:
            requirements.update(*(extra(other) for other in ours[1].split(",")))
        else:
            requirements.add(requirement)
    return requirements


def requirements_file(name: str) -> set[str]:
    """Returns the requirements of a file, those of the files that it names included."""
    requirements = set()
    for line in (ROOT / name).read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement.startswith("-r "):
            requirements |= requirements_file(requirement.removeprefix("-r "))
        elif requirement:
            requirements.add(requirement)
    return requirements


def test_the_base_dependencies_are_those_of_the_meta_learning_library():
    names = {re.split(r"[<>=]", requirement)[0] for requirement in BASE}
    assert names == {"jax", "flax", "optax", "numpy"}


def test_requirements_txt_is_the_base_and_the_extra_run():
    assert requirements_file("requirements.txt") == BASE | extra("run")


def test_every_other_extra_has_a_requirements_file():
    files = {file.stem.removeprefix("requirements-") for file in ROOT.glob("requirements-*.txt")}
    assert files == set(EXTRAS) - {"run"}


@pytest.mark.parametrize("name", sorted(set(EXTRAS) - {"run"}))
def test_an_extra_equals_its_requirements_file(name):
    assert requirements_file(f"requirements-{name}.txt") | BASE == extra(name) | BASE


def test_the_license_is_apache_2():
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["title"] == PROJECT["name"] == "dsaml_jax"
    assert citation["version"] == dsaml_jax.__version__
    assert citation["license"] == PROJECT["license"]
    assert [{"name": author["name"]} for author in citation["authors"]] == PROJECT["authors"]
    (paper,) = citation["references"]
    assert paper["title"].startswith("Personalized Dynamic Music Emotion Recognition")
    assert [author["family-names"] for author in paper["authors"]] == [
        "Zhang", "You", "Liu", "Sun", "Chen"
    ]  # fmt: skip
    assert paper["url"] == PROJECT["urls"]["Paper"] == "https://arxiv.org/abs/2412.19200"


def test_the_version_is_stated_once():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", dsaml_jax.__version__)


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_console_scripts_resolve(script):
    module, _, function = PROJECT["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_workflow_runs_what_the_makefile_checks_on_every_supported_python():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (job,) = yaml.safe_load(text)["jobs"].values()
    versions = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    assert set(job["strategy"]["matrix"]["python"]) == versions
    assert any(step.get("run") == ".ci/run" for step in job["steps"])
