"""--mode=dry_run: compiles a meta-step from shapes and reports its cost, without reading data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dsaml_jax.audio.features import embedding_size
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.tables import Tables
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import write_json
from dsaml_jax.runtime.hlo_cost import ProgramCost, program_cost
from dsaml_jax.training.devices import replicated, task_layout, task_mesh
from dsaml_jax.training.stages import training_stages
from dsaml_jax.training.state import initial_state
from dsaml_jax.training.step import make_meta_step

SONGS = {"deam": 1744, "pmemo": 767, "merp": 54, "vgmidi": 200}
"""Upper bounds on the training songs of each data set."""

RATINGS_A_SONG = 10
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of a compiled meta-step on each device, in bytes, as the compiler reports it.

    Attributes:
      peak: arguments, outputs that do not alias an argument, and temporaries.
      temporary: temporaries alone.
    """

    peak: int
    temporary: int


def dry_run(experiment: Experiment, path: Path, memory_gib: float = 0.0) -> str:
    """Compiles the last stage's meta-step from shapes; writes JSON to `path`, returns a summary.

    Peak memory is modeled as affine in the tasks that a device computes at once, peak(c) = a + b c,
    fitted to the programs compiled for c = 2 and 4; the config's own program shows the error.

    Args:
      experiment: the config; the number of songs is assumed (`SONGS`).
      path: the JSON file to write.
      memory_gib: memory of each device in GiB; 0 for what the device reports.

    Raises:
      UserError: there are more devices than tasks.
    """
    mesh = task_mesh()
    tasks = experiment.tasks
    layout = task_layout(tasks.meta_batch, tasks.tasks_per_device, mesh)
    compiled = compile_step(experiment, mesh)
    work, memory = program_cost(compiled.as_text() or ""), program_memory(compiled)
    state, tables, _ = abstract_arguments(experiment, mesh)
    result: dict[str, Any] = {
        "devices": layout.devices,
        "device_kind": jax.devices()[0].device_kind,
        "meta_batch": tasks.meta_batch,
        "tasks_at_once_per_device": layout.tasks_per_round,
        "rounds": layout.rounds,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.weights.params)),
        "songs_assumed": len(tables.log_mel),
        "songs_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tables)),
        "peak_bytes_per_device": memory.peak,
        "temporary_bytes_per_device": memory.temporary,
        "matmul_flops_per_device": work.matmul_flops,
        "other_flops_per_device": work.other_flops,
        "bytes_moved_per_device": work.bytes,
        "unbounded_loops": work.unbounded_loops,
        "collectives": [dataclasses.asdict(each) for each in work.collectives],
        "xla_cost_analysis": {
            name: (compiled.cost_analysis() or {}).get(name) for name in ("flops", "bytes accessed")
        },
    }
    limit = int(memory_gib * GIB) or (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    if limit:
        result["memory"] = largest_that_fits(
            experiment, mesh, limit, layout.tasks_per_round, memory
        )
    write_json(path, result)
    return to_text(result, work)


def compile_step(experiment: Experiment, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles the meta-step of the last stage from shapes."""
    stage = training_stages(experiment)[-1]
    optimizer = stage.config.build_optimizer(stage.inner)
    step = make_meta_step(
        experiment.model, experiment.tasks, stage.inner, optimizer, stage.config.steps, mesh
    )
    return step.lower(*abstract_arguments(experiment, mesh)).compile()


def abstract_arguments(experiment: Experiment, mesh: Mesh) -> tuple[Any, Tables, Any]:
    """Returns the shapes of (state, tables, key)."""
    stage = training_stages(experiment)[-1]

    def concrete(key):
        state = initial_state(
            experiment.model,
            stage.inner.loop(),
            stage.config.build_optimizer(stage.inner),
            key,
            experiment.audio.image,
            embedding_size(experiment.audio),
        )
        return state, empty_tables(experiment), key

    shapes = jax.eval_shape(concrete, jax.random.key(0))
    return jax.tree.map(lambda x: x.update(sharding=replicated(mesh)), shapes)


def empty_tables(experiment: Experiment) -> Tables:
    """Returns tables of zeros for as many songs as the data set has, or as one call streams.

    Ratings are spread evenly over annotators.
    """
    songs = SONGS.get(experiment.data.name) or experiment.data.builder.get("train_songs", 100)
    annotators = max(experiment.tasks.meta_batch, 1)
    ratings, segments = songs * RATINGS_A_SONG, experiment.audio.segments
    tasks = experiment.tasks
    if not experiment.data.on_device:
        drawn = tasks.meta_batch * (tasks.support + tasks.query) * tasks.steps_per_call
        songs = min(songs, drawn)
    rows = (segments,) if experiment.audio.embedding_per_segment else ()
    each = max(ratings // annotators, experiment.tasks.support + 1)
    return Tables(
        log_mel=jnp.zeros((songs, segments, *experiment.audio.image)),
        embedding=jnp.zeros((songs, *rows, embedding_size(experiment.audio))),
        curve=jnp.zeros((ratings, segments, 2)),
        valid=jnp.zeros((ratings, segments), bool),
        song_of=jnp.zeros(ratings, jnp.int32),
        annotator_of=jnp.zeros(ratings, jnp.int32),
        ratings_of=jnp.zeros((annotators, each), jnp.int32),
        counts=jnp.zeros(annotators, jnp.int32),
    )


def program_memory(compiled: jax.stages.Compiled) -> Memory:
    """Returns a compiled program's memory; arguments count whether or not they are donated."""
    stats = compiled.memory_analysis()
    if stats is None:
        raise UserError("The compiler of this device does not report the memory of a program.")
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(kept + stats.temp_size_in_bytes, stats.temp_size_in_bytes)


def largest_that_fits(
    experiment: Experiment, mesh: Mesh, limit: int, tasks_per_round: int, own: Memory
) -> dict[str, Any]:
    """Estimates the largest meta-batch whose tasks fit on the devices at once.

    Args:
      experiment: the config.
      mesh: the devices.
      limit: memory of a device, bytes.
      tasks_per_round: tasks that the config's own program computes at once on a device.
      own: memory of that program.
    """
    few, many = 2, 4
    peaks = {tasks_per_round: own.peak}
    for count in (few, many):
        if count not in peaks:
            tasks = dataclasses.replace(
                experiment.tasks, meta_batch=count * mesh.devices.size, tasks_per_device=0
            )
            changed = dataclasses.replace(experiment, tasks=tasks)
            peaks[count] = program_memory(compile_step(changed, mesh)).peak
    slope = (peaks[many] - peaks[few]) / (many - few)
    base = peaks[few] - few * slope
    most = max(int((limit - base) // max(slope, 1.0)), 0)
    return {
        "limit_bytes": limit,
        "compiled_peaks": {str(count): peak for count, peak in sorted(peaks.items())},
        "bytes_per_task_at_once": slope,
        "bytes_besides": base,
        "estimate_is_off_by": (base + slope * tasks_per_round) / own.peak - 1,
        "config_fits": own.peak <= limit,
        "most_tasks_at_once_per_device": most,
        "largest_meta_batch_at_once": most * mesh.devices.size,
    }


def to_text(result: dict[str, Any], work: ProgramCost) -> str:
    """Formats the result for the console."""
    communicated = sum(each.bytes * each.times for each in work.collectives)
    lines = [
        f"{result['parameters']:,} parameters; {result['devices']} x {result['device_kind']}; "
        f"meta-batch {result['meta_batch']}, {result['tasks_at_once_per_device']} tasks at once "
        f"per device, {result['rounds']} round(s).",
        f"Peak memory per device: {si(result['peak_bytes_per_device'])}B, including temporaries "
        f"{si(result['temporary_bytes_per_device'])}B and songs {si(result['songs_bytes'])}B "
        f"({result['songs_assumed']} songs assumed).",
        f"A meta-step on each device: {si(work.matmul_flops)}FLOP in matrix products, "
        f"{si(work.other_flops)}FLOP elsewhere, {si(work.bytes)}B read and written, "
        f"{sum(each.times for each in work.collectives)} collective(s) of {si(communicated)}B.",
    ]
    if work.unbounded_loops:
        lines.append(
            f"{work.unbounded_loops} loop(s) of unknown length are counted once: a lower bound."
        )
    memory = result.get("memory")
    if not memory:
        return "\n".join([*lines, "The device does not report its memory; give --memory_gib=N."])
    fits = "fits" if memory["config_fits"] else "does NOT fit"
    most = memory["most_tasks_at_once_per_device"]
    lines += [
        f"In {si(memory['limit_bytes'])}B per device this config {fits}. The largest meta-batch "
        f"computed at once is {memory['largest_meta_batch_at_once']} ({most} tasks per device, "
        f"{si(memory['bytes_per_task_at_once'])}B each; a line through programs compiled for 2 and "
        f"4 tasks, off by {100 * memory['estimate_is_off_by']:+.0f} % for this config)."
    ]
    if most:
        lines.append(f"With tasks.tasks_per_device={most} or less, any meta-batch fits.")
    return "\n".join(lines)


def si(value: float) -> str:
    """Formats a value with three digits and an SI prefix: 1234567 is "1.23 M"."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
