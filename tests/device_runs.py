"""Short trainings on meshes of several sizes; run by test_devices.py in processes of its own.

python -m tests.device_runs OUT.json [--all] [--coordinator=... --processes=N --process_id=I]

Without --all not every combination is run: compiling takes seconds each.
"""

import argparse
import contextlib
import functools
import json
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import tests.conftest  # noqa: F401  (the compile cache)
from dsaml_jax.config.estimators import ESTIMATORS
from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.runtime import processes
from dsaml_jax.runtime.hlo_cost import program_cost
from dsaml_jax.training.batch_source import open_batch_source
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.devices import replicate, task_mesh
from dsaml_jax.training.state import TrainState, initial_state
from dsaml_jax.training.step import make_meta_step

IMAGE, SEGMENTS, EMBEDDING, SONGS, ANNOTATORS = (3, 4), 4, 4, 12, 12
TASKS = 9
"""No number of devices but 1 divides it."""

STEPS = 3
OUTER = optax.adam(1e-2)
PLANS = ((1, 0), (2, 1), (4, 2), (8, 0))
"""(devices, tasks at once on each): 9 tasks at once; 5 rounds of 1; 2 rounds of 2; and 2 at once.
All but the first have places left over."""

MOST = {
    ("float64", "second_order"): PLANS,
    ("float64", "first_order"): (PLANS[0], PLANS[-1]),
    ("float32", "second_order"): (PLANS[0], PLANS[-1]),
}
ALL = {
    (dtype, order): PLANS
    for dtype in ("float64", "float32")
    for order in ("first_order", "second_order")
}


def model_of(dtype: str) -> DSAMLConfig:
    return DSAMLConfig(
        dim=4,
        heads=2,
        layers=1,
        feed_forward=4,
        local_width=1,
        global_width=2,
        channels=(2, 2),
        lstm_dim=2,
        predictor_dim=2,
        dropout=0.2,
        normalization="running",
        dtype=dtype,
        param_dtype=dtype,
    )


def inner_of(estimator: str) -> InnerConfig:
    return InnerConfig(
        steps=2,
        adapt="head",
        optimizer=OptimizerConfig("sgd", {"learning_rate": 0.1}),
        rates="per_tensor",
        rates_learning_rate=0.0,
        estimator=ESTIMATORS[estimator](),
    )


def random_tables(dtype: str) -> Tables:
    """Every annotator has rated every song."""
    rng = np.random.default_rng(0)
    ratings = SONGS * ANNOTATORS
    valid = np.ones((ratings, SEGMENTS), bool)
    valid[::3, -1] = False
    return Tables(
        log_mel=rng.standard_normal((SONGS, SEGMENTS, *IMAGE)).astype(dtype),
        embedding=rng.standard_normal((SONGS, EMBEDDING)).astype(dtype),
        curve=rng.uniform(-1, 1, (ratings, SEGMENTS, 2)).astype(dtype),
        valid=valid,
        song_of=np.tile(np.arange(SONGS, dtype=np.int32), ANNOTATORS),
        annotator_of=np.repeat(np.arange(ANNOTATORS, dtype=np.int32), SONGS),
        ratings_of=np.arange(ratings, dtype=np.int32).reshape(ANNOTATORS, SONGS),
        counts=np.full(ANNOTATORS, SONGS, np.int32),
    )


@functools.cache
def initial_of(dtype: str, estimator: str) -> TrainState:
    return initial_state(
        model_of(dtype), inner_of(estimator).loop(), OUTER, jax.random.key(1), IMAGE, EMBEDDING
    )


@functools.cache
def program(dtype: str, estimator: str, devices: int, tasks_per_device: int):
    """(the compiled meta-step, its arguments but for the state, and a state in its place)."""
    mesh = task_mesh(jax.devices()[:devices])
    sizes = TaskConfig(meta_batch=TASKS, support=1, query=2, tasks_per_device=tasks_per_device)
    step = make_meta_step(model_of(dtype), sizes, inner_of(estimator), OUTER, STEPS, mesh)
    tables, key = replicate((random_tables(dtype), jax.random.key(2)), mesh)

    def start():
        return replicate(jax.tree.map(np.asarray, initial_of(dtype, estimator)), mesh)

    return step.lower(start(), tables, key).compile(), (tables, key), start


def advance(compiled, state: TrainState, arguments: tuple, steps: int):
    """(state, metrics of the last step, losses) after some meta-steps."""
    found = []
    for _ in range(steps):
        state, metrics = compiled(state, *arguments)
        found.append(float(metrics.scalars["loss"]))
    return state, metrics, found


def losses(dtype: str, estimator: str, devices: int, tasks_per_device: int) -> dict:
    """Of each meta-step, with what its program communicates and what becomes of the weights."""
    with jax.enable_x64(dtype == "float64"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of donated buffers that are not used
        compiled, arguments, start = program(dtype, estimator, devices, tasks_per_device)
        state, metrics, found = advance(compiled, start(), arguments, STEPS)
        work = program_cost(compiled.as_text())
        return {
            "losses": found,
            "collectives": [[each.kind, each.times] for each in work.collectives],
            "weights": weight_of(state),
            "finite": sorted({str(leaf.shape) for leaf in jax.tree.leaves(metrics.finite)}),
            "all_finite": bool(all(leaf.all() for leaf in jax.tree.leaves(metrics.finite))),
        }


def weight_of(state: TrainState) -> float:
    """One number that tells of all weights and statistics."""
    weights = jax.device_get((state.weights.params, state.weights.batch_stats))
    return float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(weights)))


def restarted(dtype: str, estimator: str) -> dict:
    """A training that is begun on four devices and, from its checkpoint, ended on two."""
    many, few = PLANS[2], PLANS[1]
    with (
        jax.enable_x64(dtype == "float64"),
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Checkpoints(Path(folder))) as checkpoints,
    ):
        compiled, arguments, start = program(dtype, estimator, *many)
        state, _, before = advance(compiled, start(), arguments, STEPS - 1)
        checkpoints.save(state)
        compiled, arguments, start = program(dtype, estimator, *few)
        state = checkpoints.last(start()).state
        state, _, after = advance(compiled, state, arguments, 1)
        return {"losses": before + after, "weights": weight_of(state)}


def streamed(estimator: str) -> dict:
    """In float64, all meta-steps in one call, on four devices, of songs that stay on the host.

    To be run last: `jax.enable_x64` does not reach the thread that sends songs, so that float64 is
    switched on for the whole process.
    """
    jax.config.update("jax_enable_x64", True)
    dtype, (devices, tasks_per_device) = "float64", PLANS[2]
    sizes = TaskConfig(meta_batch=TASKS, support=1, query=2, tasks_per_device=tasks_per_device)
    mesh, key = task_mesh(jax.devices()[:devices]), jax.random.key(2)
    step = make_meta_step(
        model_of(dtype), sizes, inner_of(estimator), OUTER, STEPS, mesh, count=STEPS
    )
    host = random_tables(dtype)
    tables = jax.tree.map(jnp.asarray, host)
    tables = tables._replace(log_mel=host.log_mel, embedding=host.embedding)
    start = jax.tree.map(np.asarray, initial_of(dtype, estimator))
    with open_batch_source(tables, sizes, key, mesh) as batch_source:
        arguments = replicate(start, mesh), batch_source(0, STEPS), replicate(key, mesh)
        compiled = step.lower(*arguments).compile()
        state, metrics = compiled(*arguments)
    work = program_cost(compiled.as_text())
    return {
        "losses": metrics.scalars["loss"].tolist(),
        "collectives": [[each.kind, each.times] for each in work.collectives],
        "weights": weight_of(state),
    }


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("out", type=Path)
    flags.add_argument("--all", action="store_true")
    flags.add_argument("--coordinator", default="")
    flags.add_argument("--processes", type=int)
    flags.add_argument("--process_id", type=int)
    given = flags.parse_args()
    processes.initialize_distributed(given.coordinator, given.processes, given.process_id)
    several = jax.process_count() > 1
    chosen = ALL if given.all else MOST
    if several and not given.all:
        chosen = {("float64", "second_order"): PLANS}
    found = {
        f"{dtype} {estimator} {devices}": losses(dtype, estimator, devices, tasks_per_device)
        for (dtype, estimator), plans in chosen.items()
        for devices, tasks_per_device in (plans[-1:] if several else plans)
    }
    if several:
        found["disagreement"] = disagreement()
    else:
        found["restarted"] = restarted("float64", "second_order")
        found["streamed"] = streamed("second_order")
    given.out.write_text(json.dumps(found))


def disagreement() -> list[str]:
    """What is said where processes have other data, and other flags; "" where they agree."""
    said = []
    for what, content in (
        ("data", {"train": jnp.arange(3)}),
        ("data", {"train": jnp.arange(3) + jax.process_index()}),
        ("config", f"seed = {jax.process_index()}"),
    ):
        try:
            processes.check_agreement(what, content)
            said.append("")
        except processes.UserError as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    main()
