"""Short training runs on meshes of several sizes; test_devices.py runs them in subprocesses.

python -m tests.device_runs OUT.json [--all] [--coordinator=... --processes=N --process_id=I]

Without --all only exact second order in float64 runs, on 1, 4 and 8 devices, since each combination
takes seconds to compile.
"""

import argparse
import contextlib
import dataclasses
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
from dsaml_jax.config.listeners import ListenersConfig
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.data.songs import raters_of
from dsaml_jax.data.tables import Tables
from dsaml_jax.meta import MetaParams
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.runtime import processes
from dsaml_jax.runtime.hlo_cost import program_cost
from dsaml_jax.training.batch_source import open_batch_source
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.devices import replicate, task_mesh
from dsaml_jax.training.listeners_step import (
    infers_after,
    make_inference,
    make_listeners_step,
    start_listeners,
)
from dsaml_jax.training.state import TrainState, initial_state
from dsaml_jax.training.step import make_meta_step, songs_of_step

IMAGE, SEGMENTS, EMBEDDING, SONGS, ANNOTATORS = (3, 4), 4, 4, 12, 12
TASKS = 9
"""Not divisible by any of the device counts except 1."""

STEPS = 3
OUTER = optax.adam(1e-2)
PLANS = ((1, 0), (2, 1), (4, 2), (8, 0))
"""(devices, parallel tasks per device); 0 runs a device's share of the tasks in one round.

That is one round of 9, five rounds of 1, two rounds of 2, and one round of 2 tasks per device. All
but the first pad the batch of 9 tasks.
"""

LISTENERS_PLANS = ((1, 0), (4, 1), (8, 0))
"""(devices, songs at once per device): one group of 9, three rounds of 1, two songs a device."""

SELECTED = {("float64", "second_order"): (PLANS[0], *PLANS[2:])}
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
    """Returns random tables in which every annotator has rated every song."""
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
    """Returns (compiled meta-step, its arguments after the state, function giving the state)."""
    mesh = task_mesh(jax.devices()[:devices])
    sizes = TaskConfig(meta_batch=TASKS, support=1, query=2, tasks_per_device=tasks_per_device)
    step = make_meta_step(model_of(dtype), sizes, inner_of(estimator), OUTER, STEPS, mesh)
    tables, key = replicate((random_tables(dtype), jax.random.key(2)), mesh)

    def start():
        return replicate(jax.tree.map(np.asarray, initial_of(dtype, estimator)), mesh)

    return step.lower(start(), tables, key).compile(), (tables, key), start


def advance(compiled, state: TrainState, arguments: tuple, steps: int):
    """Returns (state, metrics of the last step, losses) after `steps` meta-steps."""
    values = []
    for _ in range(steps):
        state, metrics = compiled(state, *arguments)
        values.append(float(metrics.scalars["loss"]))
    return state, metrics, values


def losses(dtype: str, estimator: str, devices: int, tasks_per_device: int) -> dict:
    """Returns the losses of the meta-steps, the program's collectives and the final weights."""
    with jax.enable_x64(dtype == "float64"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # raised for unused donated buffers
        compiled, arguments, start = program(dtype, estimator, devices, tasks_per_device)
        state, metrics, values = advance(compiled, start(), arguments, STEPS)
        cost = program_cost(compiled.as_text())
        return {
            "losses": values,
            "collectives": [[item.kind, item.times] for item in cost.collectives],
            "weights": weight_of(state),
            "finite": sorted({str(leaf.shape) for leaf in jax.tree.leaves(metrics.finite)}),
            "all_finite": bool(all(leaf.all() for leaf in jax.tree.leaves(metrics.finite))),
        }


def weight_of(state: TrainState) -> float:
    """Returns the sum of the absolute values of all weights and statistics."""
    weights = jax.device_get((state.weights.params, state.weights.batch_stats))
    return float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(weights)))


def restarted(dtype: str, estimator: str) -> dict:
    """Trains on four devices and resumes from the checkpoint on eight."""
    four, eight = PLANS[2:]
    with (
        jax.enable_x64(dtype == "float64"),
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Checkpoints(Path(folder))) as checkpoints,
    ):
        compiled, arguments, start = program(dtype, estimator, *four)
        state, _, before = advance(compiled, start(), arguments, STEPS - 1)
        checkpoints.save(state)
        compiled, arguments, start = program(dtype, estimator, *eight)
        state = checkpoints.last(start()).state
        state, _, after = advance(compiled, state, arguments, 1)
        return {"losses": before + after, "weights": weight_of(state)}


def streamed(estimator: str) -> dict:
    """Runs all meta-steps in one call, in float64, on four devices, with songs kept on the host.

    Must run last: `jax.enable_x64` does not reach the thread that transfers songs, so float64 is
    enabled for the whole process.
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
    songs = functools.partial(songs_of_step, sizes)
    with open_batch_source(tables, songs, key, mesh) as batch_source:
        arguments = replicate(start, mesh), batch_source(0, STEPS), replicate(key, mesh)
        compiled = step.lower(*arguments).compile()
        state, metrics = compiled(*arguments)
    cost = program_cost(compiled.as_text())
    return {
        "losses": metrics.scalars["loss"].tolist(),
        "collectives": [[item.kind, item.times] for item in cost.collectives],
        "weights": weight_of(state),
    }


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("out", type=Path)
    flags.add_argument("--all", action="store_true")
    flags.add_argument("--coordinator", default="")
    flags.add_argument("--processes", type=int)
    flags.add_argument("--process_id", type=int)
    options = flags.parse_args()
    processes.initialize_distributed(options.coordinator, options.processes, options.process_id)
    several = jax.process_count() > 1
    selected = ALL if options.all else SELECTED
    results = {
        f"{dtype} {estimator} {devices}": losses(dtype, estimator, devices, tasks_per_device)
        for (dtype, estimator), plans in selected.items()
        for devices, tasks_per_device in (plans[-1:] if several else plans)
    }
    if several:
        results["disagreement"] = disagreement()
    else:
        for plan in LISTENERS_PLANS:
            results[f"listeners {plan[0]}"] = listeners(*plan)
        results["restarted"] = restarted("float64", "second_order")
        results["streamed"] = streamed("second_order")
    options.out.write_text(json.dumps(results))


def listeners(devices: int, songs_at_once: int) -> dict:
    """Returns the losses of the listeners' stage in float64, with an inference, and what is left.

    9 songs a step, in groups of `songs_at_once` a device.
    """
    with jax.enable_x64(True):
        model = dataclasses.replace(
            model_of("float64"),
            normalization="clip",
            context_dim=2,
            decision=True,
            support_loss="likelihood",
        )
        config = ListenersConfig(
            steps=STEPS,
            songs=TASKS,
            songs_at_once=songs_at_once,
            infer_from=2,
            embedding_noise=0.1,
            log_mel_noise=0.1,
        )
        mesh, host = task_mesh(jax.devices()[:devices]), random_tables("float64")
        raters = raters_of(host, SONGS)
        weights = initial_state(
            model, inner_of("first_order").loop(), OUTER, jax.random.key(1), IMAGE, EMBEDDING
        ).weights
        state = start_listeners(
            model, config, weights._replace(meta_params=MetaParams(weights.params, {})), OUTER, host
        )
        state = replicate(jax.tree.map(np.asarray, state), mesh)
        tables, key = replicate((host, jax.random.key(2)), mesh)
        step = make_listeners_step(model, config, OUTER, raters, mesh)
        infer = make_inference(raters, mesh)
        values = []
        for i in range(STEPS):
            state, metrics = step(state, tables, key)
            values.append(float(metrics.scalars["loss"]))
            if infers_after(config, i + 1):
                state = infer(state, tables.without_songs())
        return {
            "losses": values,
            "weights": weight_of(state) + float(np.abs(state.listeners.posterior.mean).sum()),
        }


def disagreement() -> list[str]:
    """Returns the errors for equal data, different data and different configs; "" for none."""
    messages = []
    for name, content in (
        ("data", {"train": jnp.arange(3)}),
        ("data", {"train": jnp.arange(3) + jax.process_index()}),
        ("config", f"seed = {jax.process_index()}"),
    ):
        try:
            processes.check_agreement(name, content)
            messages.append("")
        except processes.UserError as error:
            messages.append(str(error))
    return messages


if __name__ == "__main__":
    main()
