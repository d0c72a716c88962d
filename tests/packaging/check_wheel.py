"""Builds the wheel and runs it in empty environments, outside the checkout.

    python tests/packaging/check_wheel.py

Not part of pytest: it installs packages from PyPI. `.ci/run` runs it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("dsaml_jax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")

LIGHT = """
import importlib, importlib.metadata, pathlib, pkgutil, sys

import dsaml_jax, dsaml_jax.meta, dsaml_jax.model

required = [r for r in importlib.metadata.requires("dsaml_jax") if "extra ==" not in r]
assert len(required) == 4, required
assert dsaml_jax.__version__ == importlib.metadata.version("dsaml_jax")
folder = pathlib.Path(dsaml_jax.__file__).parent
assert folder.is_relative_to(sys.prefix), folder
assert (folder / "py.typed").is_file()
for package in (dsaml_jax.meta, dsaml_jax.model):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
assert dsaml_jax.DSAML is dsaml_jax.model.DSAML
heavy = {"matplotlib", "librosa", "orbax", "tensorflow_datasets", "ml_collections", "jaxtyping"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""

DRY_RUN = ("--config=demo", "--mode=dry_run", "--memory_gib=8")
TINY_RUN = (
    "--config=demo",
    "--config.data.builder.train_songs=24",
    "--config.data.builder.train_annotators=16",
    "--config.data.builder.validation_songs=16",
    "--config.data.builder.validation_annotators=8",
    "--config.data.builder.test_songs=16",
    "--config.data.builder.test_annotators=8",
    "--config.model.layers=1",
    "--config.tasks.meta_batch=2",
    "--config.listeners.steps=12",
    "--config.listeners.infer_last=2",
    "--config.listeners.validate_every=12",
    "--config.population.steps=2",
    "--config.population.validate_every=1",
    "--config.meta.steps=2",
    "--config.meta.validate_every=1",
    "--config.evaluation.episodes=1",
    "--config.evaluation.query=2",
    "--config.evaluation.songs_curve=()",
)


def main() -> None:
    """Runs both checks; exits with the failing command's output."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build_wheel(folder)
        check_library(wheel, folder / "library")
        check_program(wheel, folder / "program")


def build_wheel(folder: Path) -> Path:
    """Builds the wheel from a copy of the sources, since setuptools writes next to them."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps")
    run(folder, *pip, "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_library(wheel: Path, folder: Path) -> None:
    """Imports meta-learning and the model with only jax, flax, optax and numpy installed."""
    bin_folder = install(str(wheel), folder)
    run(folder, bin_folder / "python", "-c", LIGHT)
    message = run(folder, bin_folder / "dsaml", "--config=demo", fails=True)
    assert "pip install 'dsaml_jax[run]'" in message, message
    print("The library imports with only its base dependencies.")


def check_program(wheel: Path, folder: Path) -> None:
    """Runs the demo's dry run by both commands and trains on a few songs, with the extra `run`."""
    bin_folder = install(f"{wheel}[run]", folder)
    for command in ((bin_folder / "dsaml",), (bin_folder / "python", "-m", "dsaml_jax")):
        report = run(folder, *command, *DRY_RUN, f"--workdir={folder}/dry")
        assert "Peak memory per device" in report, report
    run(folder, bin_folder / "dsaml", *TINY_RUN)
    assert (folder / "runs" / "demo" / "results.json").is_file()
    print("The program runs from the wheel, without a checkout.")


def install(requirement: str, folder: Path) -> Path:
    """Creates an environment with one requirement in a new folder; returns its bin folder."""
    venv.create(folder / "venv", with_pip=True)
    bin_folder = folder / "venv" / "bin"
    run(folder, bin_folder / "python", "-m", "pip", "--quiet", "install", requirement)
    return bin_folder


def run(folder: Path, *command: str | Path, fails: bool = False) -> str:
    """Runs a command in a folder, without the checkout on Python's path; returns its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles faster
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if (result.returncode != 0) != fails:
        shown = " ".join(str(part) for part in command[:3])
        sys.exit(f"{result.stdout}\n{shown} ended with exit code {result.returncode}.")
    return result.stdout


if __name__ == "__main__":
    main()
