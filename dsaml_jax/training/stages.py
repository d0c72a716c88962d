"""The stages of training: the population model, and, where labels are personal, meta-learning."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsaml_jax.audio.features import embedding_size
from dsaml_jax.config.experiment import (
    Experiment,
    StageConfig,
    TaskConfig,
    fixed_config,
    resolved_config,
)
from dsaml_jax.config.inner import InnerConfig, check_adapted
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.fingerprint import Fingerprint, fingerprint
from dsaml_jax.data.songs import raters_of
from dsaml_jax.data.tables import Tables
from dsaml_jax.data.tasks import check_tasks
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.metrics import annotator_means, average, sequence_metrics
from dsaml_jax.evaluation.predictor import make_predictor, predict_windows
from dsaml_jax.evaluation.protocols import validation_set
from dsaml_jax.meta import MetaParams
from dsaml_jax.meta.finite import Finite, nonfinite_message
from dsaml_jax.meta.subset import partition
from dsaml_jax.model import MODULES, DSAMLConfig, initialize
from dsaml_jax.model.weights import Weights
from dsaml_jax.reports.learning import learning_curves
from dsaml_jax.runtime.profiling import Profiler
from dsaml_jax.training.batch_source import BatchSource, open_batch_source
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.devices import first_replica, replicate, replicated, task_mesh
from dsaml_jax.training.diagnosis import check_study, logged_diagnosis
from dsaml_jax.training.encoding import encoded_tables, freezes_encoder
from dsaml_jax.training.listeners_step import (
    ListenersState,
    infers_after,
    make_inference,
    make_listeners_step,
    personal_weights,
    songs_of_listeners_step,
    start_listeners,
    with_songs_at_most,
)
from dsaml_jax.training.loop import Fitted, StageFunctions, fit
from dsaml_jax.training.metric_writer import MetricWriter
from dsaml_jax.training.schedule import Schedule
from dsaml_jax.training.stage_log import ExplainSkip, StageLog, StepMetrics
from dsaml_jax.training.state import State, TrainState, restart
from dsaml_jax.training.step import MetaStep, drawn_annotators, make_meta_step, songs_of_step

WEIGHTS_STREAM, POPULATION_STREAM, META_STREAM, _, LISTENERS_STREAM = range(5)
"""Independent random streams of a run's seed; `diagnosis` has another."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The weights that validation chose.

    Attributes:
      population: of the model that does not adapt.
      meta: of the meta-learned model; None with consensus labels.
      validation: {stage: metrics} at those weights.
    """

    population: Weights
    meta: Weights | None
    validation: dict[str, dict[str, float]]


class Stage(NamedTuple):
    """One stage of training.

    Attributes:
      name: "population" or "meta".
      config: its optimizer and schedule.
      inner: its inner loop.
      stream: of the run's random streams.
    """

    name: str
    config: StageConfig
    inner: InnerConfig
    stream: int


def training_stages(experiment: Experiment) -> list[Stage]:
    """Returns the stages in the order of training.

    The population model is trained like the meta-learned one but without inner steps (K = 0), on
    clips of one annotator at a time; with consensus labels that annotator is everyone.
    """
    no_adaptation = experiment.inner.without_steps()
    stages = [Stage("population", experiment.population, no_adaptation, POPULATION_STREAM)]
    if experiment.data.labels == "personal":
        stages.append(Stage("meta", experiment.meta, experiment.inner, META_STREAM))
    return stages


def train(
    experiment: Experiment, corpora: Mapping[str, Corpus], workdir: Path, profile_steps: int = 0
) -> Trained:
    """Trains every stage, resuming from checkpoints if there are any.

    Args:
      experiment: the config.
      corpora: by split; "train" and "validation" are used.
      workdir: gets checkpoints, metrics, and learning curves.
      profile_steps: meta-steps of each stage to trace into `workdir/profile/STAGE`; 0 for none.

    Raises:
      UserError: a split has too few songs or annotators.
    """
    tasks = experiment.tasks
    check_tasks(
        corpora["train"], meta_batch=tasks.meta_batch, support=tasks.support, source="train"
    )
    stages = training_stages(experiment)
    if experiment.diagnostics.every and any(stage.inner.steps for stage in stages):
        check_study(experiment.inner, tasks)
    run = Run(experiment, corpora, workdir, fingerprint(corpora), task_mesh(), profile_steps)
    fitted: dict[str, Fitted] = {}
    with MetricWriter(workdir) as writer:
        start = None
        if experiment.listeners.steps:
            start = _fit_listeners(run, writer)
        for stage in stages:
            if stage.name == "meta" and experiment.meta_from_population:
                start = first_replica(fitted["population"].state.weights)
            fitted[stage.name] = _fit_stage(run, stage, start, writer)
        for name in dict.fromkeys([*shared_stages(experiment), *fitted]):
            learning_curves(workdir / "figures" / f"learning_{name}.png", writer.read(name))
    return _trained({name: (each.state, each.metrics) for name, each in fitted.items()})


def restore(
    experiment: Experiment, workdir: Path, corpora: Mapping[str, Corpus] | None = None
) -> Trained:
    """Returns the weights that validation chose in an earlier run of `train`.

    Args:
      experiment: the config of that run.
      workdir: of that run.
      corpora: the data it was trained on; if given, they must be the same.

    Raises:
      UserError: there are no weights, or they were trained on other data or with another config.
    """
    best = {}
    data = None if corpora is None else fingerprint(corpora)
    for stage in training_stages(experiment):
        with contextlib.closing(_checkpoints(experiment, stage.name, workdir, data)) as checkpoints:
            saved = checkpoints.best(_template(experiment, stage))
        if saved is None or saved.metrics is None:
            raise UserError(
                f"{workdir} holds no {stage.name} checkpoint yet; run --mode=train first."
            )
        best[stage.name] = saved.state, saved.metrics
    return _trained(best)


def validation(
    experiment: Experiment, corpus: Corpus, inner: InnerConfig
) -> Callable[[State], dict[str, float]]:
    """Returns validate(state) -> CCC, PCC, RMSE before and after adapting.

    "selection", by which the best state is chosen, is the CCC after adapting.
    """
    eval_set = validation_set(experiment, corpus)
    sequences = eval_set.sequences
    predict = make_predictor(experiment.model, inner, experiment.evaluation.chunk)

    def validate(state: State) -> dict[str, float]:
        weights = first_replica(state.weights)
        before = eval_set.plan.splice(predict_windows(experiment.model, weights, eval_set))
        curves_by_method = {"population" if inner.steps == 0 else "unadapted": before}
        if inner.steps and eval_set.episodes is not None:
            curves_by_method["adapted"] = predict(weights, eval_set, eval_set.episodes.support)[0]
        metrics = {}
        for method, curves in curves_by_method.items():
            per_sequence = sequence_metrics(curves, sequences.curve, sequences.valid, name=method)
            means = average(annotator_means(per_sequence, sequences.unit))
            metrics |= {f"{method}/{name}": means[name] for name in ("ccc", "pcc", "rmse")}
            metrics["selection"] = means["ccc"]
        return metrics

    return validate


def check_patterns(experiment: Experiment) -> None:
    """Raises UserError if a pattern of weight paths matches no weight; computes nothing."""
    params = jax.eval_shape(lambda: _initial_weights(experiment)).params
    check_adapted(experiment.inner, params)
    stages = {stage.name: stage.config for stage in training_stages(experiment)}
    if experiment.listeners.steps:
        stages["listeners"] = experiment.listeners
    for name, config in stages.items():
        try:
            partition(params, config.trained)
        except UserError as error:
            raise UserError(f"{name}.train: {error}") from error


def shared_stages(experiment: Experiment) -> list[str]:
    """Returns the stages before meta-learning, which do not depend on the inner loop."""
    return ["listeners"] * bool(experiment.listeners.steps) + ["population"]


def stage_config(experiment: Experiment, stage: str) -> dict[str, Any]:
    """Returns the resolved config that the weights of a stage depend on.

    Earlier stages do not depend on later ones, nor on the inner loop, so that the variants of a
    comparison can share them.
    """
    config = fixed_config(resolved_config(experiment))
    later = {
        "listeners": ("population", "meta", "meta_from_population", "inner"),
        "population": ("meta", "meta_from_population", "inner"),
        "meta": (),
    }
    return {name: value for name, value in config.items() if name not in later[stage]}


def initial_meta_state(experiment: Experiment) -> TrainState:
    """Returns step 0 of meta-learning with fresh weights."""
    return _initial_state(experiment, Stage("meta", experiment.meta, experiment.inner, META_STREAM))


class Run(NamedTuple):
    """What all stages of a run share.

    Attributes:
      experiment: the config.
      corpora: the data by split.
      workdir: gets checkpoints and metrics.
      data: fingerprint of the data.
      mesh: the devices.
      profile_steps: steps of each stage to trace.
    """

    experiment: Experiment
    corpora: Mapping[str, Corpus]
    workdir: Path
    data: Fingerprint
    mesh: Mesh
    profile_steps: int

    def key(self, stream: int) -> jax.Array:
        """Returns the random key of a stage."""
        return jax.random.fold_in(jax.random.key(self.experiment.seed), stream)

    def profiler(self, stage: str) -> Profiler:
        """Returns the profiler of a stage."""
        return Profiler(self.workdir / "profile" / stage, self.profile_steps)


def _fit_stage(run: Run, stage: Stage, start: Weights | None, writer: MetricWriter) -> Fitted:
    """Trains a stage from `start`, or from fresh weights, or resumes it."""
    experiment, tasks, corpus = run.experiment, run.experiment.tasks, run.corpora["train"]
    state = _initial_state(experiment, stage) if start is None else _restart(stage, start)
    tables = corpus.tables
    if freezes_encoder(stage.config.trained, state.weights.params):
        tables = encoded_tables(experiment.model, state.weights, tables)
    key = run.key(stage.stream)
    songs = functools.partial(songs_of_step, tasks)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            contextlib.closing(_checkpoints(experiment, stage.name, run.workdir, run.data))
        )
        source = stack.enter_context(open_batch_source(tables, songs, key, run.mesh))
        return fit(
            StageFunctions(
                _advance(experiment.model, tasks, stage, source, key, run.mesh),
                validation(experiment, run.corpora["validation"], stage.inner),
                logged_diagnosis(experiment, corpus.tables),
            ),
            _schedule(experiment, stage),
            replicate(state, run.mesh),
            checkpoints,
            StageLog(
                stage.name,
                writer,
                _explain_skip(tasks, corpus, stage, key),
                stage.config.skip_at_most,
            ),
            run.profiler(stage.name),
        )


def _fit_listeners(run: Run, writer: MetricWriter) -> Weights:
    """Trains the listeners' stage, or resumes it; returns the start of the other stages."""
    experiment, corpus, config = run.experiment, run.corpora["train"], run.experiment.listeners
    model, tables, count = experiment.model, corpus.tables, len(corpus.song_ids)
    config = with_songs_at_most(config, count)
    # Listeners are inferred by the likelihood, whatever the support loss of the model is.
    model = dataclasses.replace(model, support_loss="likelihood")
    optimizer = config.build_optimizer(experiment.inner.without_steps())
    fresh = _initial_weights(dataclasses.replace(experiment, model=model))
    state = start_listeners(model, config, fresh, optimizer, tables)
    key, raters = run.key(LISTENERS_STREAM), raters_of(tables, count)
    step = make_listeners_step(model, config, optimizer, raters, run.mesh)
    infer = make_inference(raters, run.mesh)
    all_ratings = replicate(tables.without_songs(), run.mesh)
    score = validation(experiment, run.corpora["validation"], experiment.inner.without_steps())
    held_key = replicate(key, run.mesh)

    def songs(tables: Tables, key: jax.Array, step: jax.Array) -> jax.Array:
        return songs_of_listeners_step(key, step, count, config.songs)

    def explain_skip(step: int, finite: Finite) -> str | None:
        drawn = np.asarray(songs(tables, key, jnp.int32(step - 1)))
        bad = [corpus.song_ids[i] for i in drawn[~np.asarray(finite.query_loss)]]
        named = f" of {', '.join(bad[:3])}" if bad else ""
        return (
            f"Step {step}: the loss{named} or its gradient is not finite; lower "
            "listeners.optimizer.options.learning_rate."
        )

    def validate(state: ListenersState) -> dict[str, float]:
        metrics = score(state)
        # Listeners that were never inferred are no start for meta-learning: CCC is at least -1.
        is_inferred = int(state.step) >= config.infer_from
        return metrics | {"selection": metrics["selection"] - 2 * (not is_inferred)}

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            contextlib.closing(_checkpoints(experiment, "listeners", run.workdir, run.data))
        )
        source = stack.enter_context(open_batch_source(tables, songs, key, run.mesh))

        def advance(state: ListenersState, first: int, count: int):
            given = source(first, count)  # of one step, as steps_per_call is 1
            state, metrics = step(state, given, held_key)
            if infers_after(config, first + 1):
                state = infer(state, all_ratings)
            return state, metrics

        fitted = fit(
            StageFunctions(
                advance,
                validate,
                lambda state: {},
            ),
            Schedule(config.steps, config.validate_every, config.checkpoint_every),
            replicate(state, run.mesh),
            checkpoints,
            StageLog("listeners", writer, explain_skip, config.skip_at_most),
            run.profiler("listeners"),
        )
    state = fitted.state
    for _ in range(config.infer_last):
        state = infer(state, all_ratings)
    return personal_weights(experiment.model, first_replica(state))


def _checkpoints(
    experiment: Experiment, stage: str, workdir: Path, data: Fingerprint | None
) -> Checkpoints:
    """Opens the checkpoints of a stage, with the config that its weights depend on."""
    run = {"config": stage_config(experiment, stage)} | ({} if data is None else {"data": data})
    return Checkpoints(workdir / "checkpoints" / stage, run)


def _initial_weights(experiment: Experiment) -> Weights:
    key = jax.random.fold_in(jax.random.key(experiment.seed), WEIGHTS_STREAM)
    audio = experiment.audio
    variables = initialize(experiment.model, key, audio.image, embedding_size(audio))
    return Weights(MetaParams(variables["params"], {}), variables.get("batch_stats", {}))


def _initial_state(experiment: Experiment, stage: Stage) -> TrainState:
    return _restart(stage, _initial_weights(experiment))


def _template(experiment: Experiment, stage: Stage) -> TrainState:
    """Returns the shapes of a stage's state, with a copy on every device."""
    sharding = replicated(task_mesh())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda: _initial_state(experiment, stage)),
    )


def _restart(stage: Stage, weights: Weights) -> TrainState:
    """Returns step 0 of a stage that starts from given weights."""
    optimizer = stage.config.build_optimizer(stage.inner)
    return restart(weights.params, weights.batch_stats, stage.inner.loop(), optimizer)


def _schedule(experiment: Experiment, stage: Stage) -> Schedule:
    return Schedule(
        steps=stage.config.steps,
        validate_every=stage.config.validate_every,
        checkpoint_every=stage.config.checkpoint_every,
        diagnose_every=experiment.diagnostics.every if stage.inner.steps else 0,
        steps_per_call=experiment.tasks.steps_per_call,
    )


def _advance(
    model: DSAMLConfig,
    tasks: TaskConfig,
    stage: Stage,
    source: BatchSource,
    key: jax.Array,
    mesh: Mesh,
) -> Callable[[TrainState, int, int], tuple[TrainState, StepMetrics]]:
    """Returns `StageFunctions.advance`; compiles one program for each number of steps a call."""
    key = replicate(key, mesh)
    optimizer = stage.config.build_optimizer(stage.inner)

    @functools.cache
    def program(count: int) -> MetaStep:
        return make_meta_step(model, tasks, stage.inner, optimizer, stage.config.steps, mesh, count)

    def advance(state: TrainState, first: int, count: int) -> tuple[TrainState, StepMetrics]:
        return program(count)(state, source(first, count), key)

    return advance


def _explain_skip(tasks: TaskConfig, corpus: Corpus, stage: Stage, key: jax.Array) -> ExplainSkip:
    """Returns explain_skip(step, finite), which draws the step's annotators again to name them."""

    def explain_skip(step: int, finite: Finite) -> str | None:
        drawn = drawn_annotators(tasks, corpus.tables, key, step - 1)
        return nonfinite_message(
            finite,
            estimator=stage.inner.estimator.name,
            step=step,
            order=MODULES,
            names=[f"annotator {corpus.annotator_ids[i]}" for i in drawn],
        )

    return explain_skip


def _trained(best: Mapping[str, tuple[TrainState, dict[str, float]]]) -> Trained:
    """Collects the best state of each stage, on one device: evaluation is not sharded."""
    weights = {name: first_replica(state.weights) for name, (state, _) in best.items()}
    return Trained(
        weights["population"],
        weights.get("meta"),
        {name: metrics for name, (_, metrics) in best.items()},
    )
