"""The stages of training: the population model, and, where labels are personal, meta-learning."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from dsaml_jax.audio.features import embedding_size
from dsaml_jax.commands.workdir import resolved_config
from dsaml_jax.config.experiment import Experiment, StageConfig, TaskConfig
from dsaml_jax.config.inner import InnerConfig, check_adapted
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.fingerprint import fingerprint
from dsaml_jax.data.tasks import check_tasks
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.eval_set import Weights, make_eval_set, make_predictor, predict_windows
from dsaml_jax.evaluation.metrics import annotator_means, average, sequence_metrics
from dsaml_jax.evaluation.windows import splice_windows
from dsaml_jax.meta.finite import Finite, nonfinite_message
from dsaml_jax.model import MODULES, initialize
from dsaml_jax.reports import figures
from dsaml_jax.training.batch_source import BatchSource, open_batch_source
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.devices import first_replica, replicate, task_mesh
from dsaml_jax.training.diagnosis import check_study, logged_diagnosis
from dsaml_jax.training.loop import Advance, Explain, fit
from dsaml_jax.training.metric_writer import MetricWriter
from dsaml_jax.training.state import TrainState, initial_state, restart
from dsaml_jax.training.step import MetaStep, drawn_annotators, make_meta_step

WEIGHTS_STREAM, POPULATION_STREAM, META_STREAM = range(3)
"""Independent random streams of a run's seed."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """Attributes:
    population: the weights that validation chose.
    meta: likewise of the meta-learned model; None with consensus labels.
    validation: {stage: metrics} of the weights chosen.
    """

    population: Weights
    meta: Weights | None
    validation: dict[str, dict[str, float]]


class Stage(NamedTuple):
    """Attributes: name; config: of the stage; inner: its inner loop; stream: of randomness."""

    name: str
    config: StageConfig
    inner: InnerConfig
    stream: int


def training_stages(experiment: Experiment) -> list[Stage]:
    """What is trained, in this order.

    The population model is trained as the meta-learned one is, with no inner step (K = 0): on
    clips of one annotator at a time, which with consensus labels is everyone.
    """
    no_adaptation = experiment.inner.without_steps()
    stages = [Stage("population", experiment.population, no_adaptation, POPULATION_STREAM)]
    if experiment.data.labels == "personal":
        stages.append(Stage("meta", experiment.meta, experiment.inner, META_STREAM))
    return stages


def train(experiment: Experiment, corpora: dict[str, Corpus], workdir: Path) -> Trained:
    """Trains every stage; goes on from checkpoints if there are any.

    Raises:
      UserError: a split has too few songs or annotators.
    """
    tasks = experiment.tasks
    check_tasks(
        corpora["train"], meta_batch=tasks.meta_batch, support=tasks.support, source="train"
    )
    if experiment.diagnostics.every and any(s.inner.steps for s in training_stages(experiment)):
        check_study(experiment)
    key, mesh = jax.random.key(experiment.seed), task_mesh()
    tables = corpora["train"].tables
    about = {
        "config": resolved_config(experiment),
        "seed": experiment.seed,
        "data": fingerprint(corpora),
    }
    fitted = {}
    with MetricWriter(workdir) as metric_writer:
        for stage in training_stages(experiment):
            optimizer = stage.config.build_optimizer(stage.inner)
            start = _initial(experiment, stage)
            if stage.name == "meta" and experiment.meta_from_population:
                population = first_replica(fitted["population"].state)
                start = restart(
                    population.params, population.batch_stats, stage.inner.loop(), optimizer
                )
            stage_key = jax.random.fold_in(key, stage.stream)
            with (
                contextlib.closing(
                    Checkpoints(workdir / "checkpoints" / stage.name, about)
                ) as checkpoints,
                open_batch_source(tables, tasks, stage_key, mesh) as batch_source,
            ):
                fitted[stage.name] = fit(
                    stage.name,
                    stage.config,
                    _advance(experiment, stage, optimizer, batch_source, stage_key, mesh),
                    replicate(start, mesh),
                    validation(experiment, corpora["validation"], stage.inner),
                    checkpoints,
                    metric_writer,
                    _explanation(tasks, corpora["train"], stage, stage_key),
                    logged_diagnosis(experiment, tables),
                    experiment.diagnostics.every if stage.inner.steps else 0,
                    tasks.steps_per_call,
                )
        for name in fitted:
            figures.learning_curves(
                workdir / "figures" / f"learning_{name}.png", metric_writer.read(name)
            )
    return _trained({name: (each.state, each.metrics) for name, each in fitted.items()})


def restore(
    experiment: Experiment, workdir: Path, corpora: dict[str, Corpus] | None = None
) -> Trained:
    """The weights that validation chose in an earlier run of `train`.

    Raises:
      UserError: there are none; or they were trained on other data than `corpora`, if those are
        given.
    """
    found = {}
    about = {} if corpora is None else {"data": fingerprint(corpora)}
    for stage in training_stages(experiment):
        checkpoints = Checkpoints(workdir / "checkpoints" / stage.name, about)
        best = checkpoints.best(replicate(_initial(experiment, stage), task_mesh()))
        checkpoints.close()
        if best is None:
            raise UserError(
                f"{workdir} holds no {stage.name} checkpoint yet; run --mode=train first."
            )
        found[stage.name] = best
    return _trained(found)


def validation(
    experiment: Experiment, corpus: Corpus, inner: InnerConfig
) -> Callable[[TrainState], dict[str, float]]:
    """validate(state) -> CCC, PCC, RMSE before and after adapting; CCC after it selects."""
    eval_set = make_eval_set(experiment, corpus, "validation")
    sequences = eval_set.sequences
    predict = make_predictor(experiment.model, inner, experiment.evaluation.chunk)

    def validate(state: TrainState) -> dict[str, float]:
        weights = _weights(state)
        before = splice_windows(predict_windows(experiment.model, weights, eval_set), eval_set.plan)
        scored = {"population" if inner.steps == 0 else "unadapted": before}
        if inner.steps:
            scored["adapted"] = predict(weights, eval_set, eval_set.episodes.support)[0]
        metrics = {}
        for row, curves in scored.items():
            each = sequence_metrics(curves, sequences.curve, sequences.valid, name=row)
            means = average(annotator_means(each, sequences.unit))
            metrics |= {f"{row}/{name}": means[name] for name in ("ccc", "pcc", "rmse")}
            metrics["selection"] = means["ccc"]
        return metrics

    return validate


def check_inner(experiment: Experiment) -> None:
    """Raises UserError where a pattern of `inner.adapt` matches nothing; computes nothing."""
    variables = jax.eval_shape(
        lambda key: initialize(
            experiment.model, key, experiment.audio.image, embedding_size(experiment.audio)
        ),
        jax.random.key(0),
    )
    check_adapted(experiment.inner, variables["params"])


def initial_meta_state(experiment: Experiment) -> TrainState:
    """Of meta-learning from fresh weights."""
    return _initial(experiment, Stage("meta", experiment.meta, experiment.inner, META_STREAM))


def _initial(experiment: Experiment, stage: Stage) -> TrainState:
    return initial_state(
        experiment.model,
        stage.inner.loop(),
        stage.config.build_optimizer(stage.inner),
        jax.random.fold_in(jax.random.key(experiment.seed), WEIGHTS_STREAM),
        experiment.audio.image,
        embedding_size(experiment.audio),
    )


def _advance(
    experiment: Experiment,
    stage: Stage,
    optimizer: optax.GradientTransformation,
    batch_source: BatchSource,
    key: jax.Array,
    mesh: Mesh,
) -> Advance:
    """Takes meta-steps of a stage, from a program for each number of them in a call."""
    key = replicate(key, mesh)

    @functools.cache
    def program(count: int) -> MetaStep:
        steps = stage.config.steps
        return make_meta_step(
            experiment.model, experiment.tasks, stage.inner, optimizer, steps, mesh, count
        )

    def advance(state: TrainState, first: int, count: int):
        return program(count)(state, batch_source(first, count), key)

    return advance


def _explanation(tasks: TaskConfig, corpus: Corpus, stage: Stage, key: jax.Array) -> Explain:
    """explain(step, finite): names the annotators too, who are drawn once more for it."""

    def explain(step: int, finite: Finite) -> str | None:
        drawn = drawn_annotators(tasks, corpus.tables, key, step - 1)
        return nonfinite_message(
            finite,
            estimator=stage.inner.estimator.name,
            step=step,
            order=MODULES,
            names=[f"annotator {corpus.annotator_ids[i]}" for i in drawn],
        )

    return explain


def _trained(found: dict[str, tuple[TrainState, dict[str, float]]]) -> Trained:
    return Trained(
        _weights(found["population"][0]),
        _weights(found["meta"][0]) if "meta" in found else None,
        {name: metrics for name, (_, metrics) in found.items()},
    )


def _weights(state: TrainState) -> Weights:
    """On one device: evaluation is not spread over devices."""
    state = first_replica(state)
    return Weights(state.params, state.batch_stats, state.rates)
