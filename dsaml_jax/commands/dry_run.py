"""A dry run: what a meta-step computes and needs, by the compiler, before any data is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dsaml_jax.audio.features import embedding_size
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Tables
from dsaml_jax.runtime.files import write_json
from dsaml_jax.runtime.hlo_cost import ProgramCost, program_cost
from dsaml_jax.training.devices import replicated, task_layout, task_mesh
from dsaml_jax.training.stages import training_stages
from dsaml_jax.training.state import initial_state
from dsaml_jax.training.step import make_meta_step

SONGS = {"deam": 1744, "pmemo": 767, "merp": 54, "vgmidi": 200}
"""Songs of each data set, at most: those that a split leaves for training are fewer."""

RATINGS_A_SONG = 10
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a compiled meta-step needs on each device, in bytes, by the compiler's account.

    Attributes:
      peak: arguments, results that do not take an argument's place, and temporaries.
      temporary: of these, what lives during the step only.
    """

    peak: int
    temporary: int


def dry_run(experiment: Experiment, path: Path, memory_gib: float = 0.0) -> str:
    """Compiles the last stage's meta-step from shapes alone; writes JSON to `path`, returns a text.

    Peak memory is taken as affine in the tasks that a device computes at once, peak(c) = a + b c,
    through the programs compiled for c = 2 and 4; the config's own program tells how far off it is.

    Args:
      experiment: the config; of its data set only the number of songs is assumed (`SONGS`).
      path: of the JSON file.
      memory_gib: of each device; 0 for what the device says it has.

    Raises:
      UserError: there are more devices than tasks.
    """
    mesh = task_mesh()
    tasks = experiment.tasks
    layout = task_layout(tasks.meta_batch, tasks.tasks_per_device, mesh)
    compiled = compile_step(experiment, mesh)
    work, memory = program_cost(compiled.as_text()), memory_of(compiled)
    state, tables, _ = abstract_arguments(experiment, mesh)
    found: dict[str, Any] = {
        "devices": layout.devices,
        "device_kind": jax.devices()[0].device_kind,
        "meta_batch": tasks.meta_batch,
        "tasks_at_once_per_device": layout.together,
        "rounds": layout.rounds,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "songs_assumed": len(tables.log_mel),
        "songs_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in tables),
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
        found["memory"] = largest_that_fits(experiment, mesh, limit, layout.together, memory)
    write_json(path, found)
    return to_text(found, work)


def compile_step(experiment: Experiment, mesh: Mesh) -> jax.stages.Compiled:
    """The meta-step of the last stage, from shapes."""
    stage = training_stages(experiment)[-1]
    optimizer = stage.config.build_optimizer(stage.inner)
    step = make_meta_step(
        experiment.model, experiment.tasks, stage.inner, optimizer, stage.config.steps, mesh
    )
    return step.lower(*abstract_arguments(experiment, mesh)).compile()


def abstract_arguments(experiment: Experiment, mesh: Mesh) -> tuple[Any, Tables, Any]:
    """Shapes of (state, tables, key)."""
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
    """Tables of as many songs as the data set has, or as are sent for a call where they are
    streamed; ratings are spread evenly over annotators."""
    songs = SONGS.get(experiment.data.name) or experiment.data.builder.get("train_songs", 100)
    annotators = max(experiment.tasks.meta_batch, 1)
    ratings, segments = songs * RATINGS_A_SONG, experiment.audio.segments
    tasks = experiment.tasks
    if not experiment.data.on_device:
        drawn = tasks.meta_batch * (tasks.support + tasks.query) * tasks.steps_per_call
        songs = min(songs, drawn)
    each = max(ratings // annotators, experiment.tasks.support + 1)
    return Tables(
        log_mel=jnp.zeros((songs, segments, *experiment.audio.image)),
        embedding=jnp.zeros((songs, embedding_size(experiment.audio))),
        curve=jnp.zeros((ratings, segments, 2)),
        valid=jnp.zeros((ratings, segments), bool),
        song_of=jnp.zeros(ratings, jnp.int32),
        annotator_of=jnp.zeros(ratings, jnp.int32),
        ratings_of=jnp.zeros((annotators, each), jnp.int32),
        counts=jnp.zeros(annotators, jnp.int32),
    )


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """Of a compiled program; its arguments are counted, whether or not they are given up to it."""
    stats = compiled.memory_analysis()
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(kept + stats.temp_size_in_bytes, stats.temp_size_in_bytes)


def largest_that_fits(
    experiment: Experiment, mesh: Mesh, limit: int, together: int, own: Memory
) -> dict[str, Any]:
    """The most tasks that a device of `limit` bytes computes at once, and so the meta-batch.

    Args:
      limit: bytes of a device.
      together: tasks that the config's own program computes at once, which needs `own`.
    """
    few, many = 2, 4
    peaks = {together: own.peak}
    for count in (few, many):
        if count not in peaks:
            tasks = dataclasses.replace(
                experiment.tasks, meta_batch=count * mesh.devices.size, tasks_per_device=0
            )
            changed = dataclasses.replace(experiment, tasks=tasks)
            peaks[count] = memory_of(compile_step(changed, mesh)).peak
    slope = (peaks[many] - peaks[few]) / (many - few)
    base = peaks[few] - few * slope
    most = max(int((limit - base) // max(slope, 1.0)), 0)
    return {
        "limit_bytes": limit,
        "compiled_peaks": {str(count): peak for count, peak in sorted(peaks.items())},
        "bytes_per_task_at_once": slope,
        "bytes_besides": base,
        "estimate_is_off_by": (base + slope * together) / own.peak - 1,
        "config_fits": own.peak <= limit,
        "most_tasks_at_once_per_device": most,
        "largest_meta_batch_at_once": most * mesh.devices.size,
    }


def to_text(found: dict[str, Any], work: ProgramCost) -> str:
    """What a person wants to know of it."""
    communicated = sum(each.bytes * each.times for each in work.collectives)
    lines = [
        f"{found['parameters']:,} parameters; {found['devices']} x {found['device_kind']}; "
        f"meta-batch {found['meta_batch']}, {found['tasks_at_once_per_device']} tasks at once on a "
        f"device, {found['rounds']} round(s).",
        f"Peak memory a device: {si(found['peak_bytes_per_device'])}B, of it temporary "
        f"{si(found['temporary_bytes_per_device'])}B and songs {si(found['songs_bytes'])}B "
        f"({found['songs_assumed']} songs are assumed).",
        f"A meta-step, each device: {si(work.matmul_flops)}FLOP in matrix products, "
        f"{si(work.other_flops)}FLOP elsewhere, {si(work.bytes)}B read and written, "
        f"{sum(each.times for each in work.collectives)} collective(s) of {si(communicated)}B.",
    ]
    if work.unbounded_loops:
        lines.append(
            f"{work.unbounded_loops} loop(s) of unknown length are counted once: more is computed."
        )
    memory = found.get("memory")
    if not memory:
        return "\n".join([*lines, "The device does not tell its memory: give --memory_gib=N."])
    fits = "fits" if memory["config_fits"] else "does NOT fit"
    most = memory["most_tasks_at_once_per_device"]
    lines.append(
        f"In {si(memory['limit_bytes'])}B a device this config {fits}. The largest "
        f"meta-batch computed at once is {memory['largest_meta_batch_at_once']} ({most} tasks a "
        f"device, {si(memory['bytes_per_task_at_once'])}B each, a line through programs "
        f"compiled for 2 and 4; off by {100 * memory['estimate_is_off_by']:+.0f} % for this config)"
        + (f"; with tasks.at_once={most} or less, any meta-batch fits." if most else ".")
    )
    return "\n".join(lines)


def si(value: float) -> str:
    """Three digits and a prefix: 1234567 is "1.23 M"."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
