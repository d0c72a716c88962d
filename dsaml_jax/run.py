"""A whole run: data, population model, meta-learning, evaluation, figures."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import jax
import numpy as np

from dsaml_jax import plots
from dsaml_jax.audio.features import embedding_size
from dsaml_jax.corpus import Corpus
from dsaml_jax.data import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation import protocol, tables
from dsaml_jax.evaluation.metrics import annotator_means, average, sequence_metrics
from dsaml_jax.evaluation.protocol import Sequences, Weights
from dsaml_jax.experiment import Experiment, StageConfig
from dsaml_jax.inner import InnerConfig, check_adapted
from dsaml_jax.model import initialize
from dsaml_jax.tasks import Episodes, check_support, check_tasks, fixed_episodes
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.loop import fit
from dsaml_jax.training.records import Records
from dsaml_jax.training.state import TrainState, initial_state, restart
from dsaml_jax.training.step import make_meta_step
from dsaml_jax.workdir import write_json

LOG = logging.getLogger(__name__)

WEIGHTS_STREAM, POPULATION_STREAM, META_STREAM = range(3)
"""Independent random streams of a run's seed."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """Attributes: population, meta: the weights that validation chose, and how they did there."""

    population: Weights
    meta: Weights
    validation: dict[str, dict[str, float]]


def train(experiment: Experiment, corpora: dict[str, Corpus], workdir: Path) -> Trained:
    """Trains the population model and the meta-learned one; goes on from checkpoints if any."""
    for split in ("validation", "test"):
        check_support(corpora[split], support=experiment.tasks.support, source=split)
    tasks = experiment.tasks
    check_tasks(
        corpora["train"], meta_batch=tasks.meta_batch, support=tasks.support, source="train"
    )
    key = jax.random.key(experiment.seed)
    no_adaptation = experiment.inner.without_steps()
    with Records(workdir) as records:

        def run_stage(name, stage: StageConfig, inner: InnerConfig, start: TrainState, stream: int):
            checkpoints = Checkpoints(workdir / "checkpoints" / name)
            try:
                return fit(
                    name,
                    stage,
                    make_meta_step(
                        experiment.model, tasks, inner, stage.build_optimizer(inner), stage.steps
                    ),
                    start,
                    corpora["train"].tables,
                    jax.random.fold_in(key, stream),
                    _validation(experiment, corpora["validation"], inner),
                    checkpoints,
                    records,
                )
            finally:
                checkpoints.close()

        start = _initial(experiment, experiment.population, no_adaptation)
        population = run_stage(
            "population", experiment.population, no_adaptation, start, POPULATION_STREAM
        )
        start = _initial(experiment, experiment.meta, experiment.inner)
        if experiment.meta_from_population:
            start = restart(
                population.state.params,
                population.state.statistics,
                experiment.inner.loop(),
                experiment.meta.build_optimizer(experiment.inner),
            )
        meta = run_stage("meta", experiment.meta, experiment.inner, start, META_STREAM)
        for name in ("population", "meta"):
            plots.learning_curves(workdir / "figures" / f"learning_{name}.png", records.read(name))
    return Trained(
        _weights(population.state),
        _weights(meta.state),
        {"population": population.metrics, "meta": meta.metrics},
    )


def restore(experiment: Experiment, workdir: Path) -> Trained:
    """The weights that validation chose in an earlier run of `train`.

    Raises:
      UserError: there are none.
    """
    found = {}
    stages = {
        "population": (experiment.population, experiment.inner.without_steps()),
        "meta": (experiment.meta, experiment.inner),
    }
    for name, (stage, inner) in stages.items():
        checkpoints = Checkpoints(workdir / "checkpoints" / name)
        best = checkpoints.best(_initial(experiment, stage, inner))
        checkpoints.close()
        if best is None:
            raise UserError(f"{workdir} holds no {name} checkpoint yet; run --mode=train first.")
        found[name] = best
    return Trained(
        *(_weights(found[name][0]) for name in ("population", "meta")),
        {name: metrics for name, (_, metrics) in found.items()},
    )


def evaluate(
    experiment: Experiment, corpora: dict[str, Corpus], trained: Trained, workdir: Path
) -> tables.Results:
    """Scores every row on the test split; writes `results.json`, `results.md` and figures."""
    corpus = corpora["test"]
    check_support(corpus, support=experiment.tasks.support, source="test")
    episodes = _episodes(experiment, corpus)
    sequences = protocol.tested_sequences(corpus, episodes)
    chunk = experiment.evaluation.chunk
    adapt = protocol.make_predictor(experiment.model, experiment.inner, chunk)

    def by_song(weights: Weights) -> np.ndarray:
        return protocol.predict_songs(experiment.model, weights, corpus.tables, chunk)

    def adapted(weights: Weights, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return adapt(weights, corpus, support, episodes)

    heard = by_song(trained.population)
    curves, losses = adapted(trained.meta, episodes.support)
    rows = {
        "constant": np.broadcast_to(
            protocol.training_mean(corpora["train"]), sequences.curve.shape
        ),
        "population": protocol.population_curves(heard, corpus, sequences),
        "shifted": protocol.shifted_curves(heard, corpus, episodes, sequences),
        "fine_tuned": adapted(
            trained.population._replace(
                rates=experiment.inner.loop().initial_rates(trained.population.params)
            ),
            episodes.support,
        )[0],
        "unadapted": protocol.population_curves(by_song(trained.meta), corpus, sequences),
        "wrong_listener": adapted(trained.meta, episodes.control)[0],
        "adapted": curves,
    }
    if corpus.noise_free is not None:
        rows["oracle"] = corpus.noise_free[sequences.rating]
    results = tables.compare(
        rows,
        sequences.curve,
        sequences.valid,
        sequences.annotator,
        seed=experiment.seed,
        resamples=experiment.evaluation.resamples,
    )
    table = results.to_markdown(protocol.ROW_ORDER)
    write_json(
        workdir / "results.json",
        results.to_json()
        | {
            "seed": experiment.seed,
            "validation": trained.validation,
            "control": {
                "episodes": len(episodes.annotator),
                "same_songs": int(episodes.same_songs.sum()),
            },
        },
    )
    (workdir / "results.md").write_text(table + "\n")
    plots.inner_loop_figure(workdir / "figures" / "inner_loop.png", losses)
    plots.listener_figure(
        workdir / "figures" / "listeners.png",
        _drawn(corpus, sequences, rows, experiment.evaluation.figures),
    )
    LOG.info(
        "test: %d annotators, %d episodes, %d sequences; the control has the same songs in %d",
        results.counts["annotators"],
        len(episodes.annotator),
        results.counts["sequences"],
        episodes.same_songs.sum(),
    )
    return results


def _check_adapted(experiment: Experiment) -> None:
    """Raises UserError where a pattern of `inner.adapt` matches nothing; computes nothing."""
    variables = jax.eval_shape(
        lambda key: initialize(
            experiment.model, key, experiment.audio.image, embedding_size(experiment.audio)
        ),
        jax.random.key(0),
    )
    check_adapted(experiment.inner, variables["params"])


def _initial(experiment: Experiment, stage: StageConfig, inner: InnerConfig) -> TrainState:
    return initial_state(
        experiment.model,
        inner.loop(),
        stage.build_optimizer(inner),
        jax.random.fold_in(jax.random.key(experiment.seed), WEIGHTS_STREAM),
        experiment.audio.image,
        embedding_size(experiment.audio),
    )


def _weights(state: TrainState) -> Weights:
    return Weights(state.params, state.statistics, state.rates)


def _episodes(experiment: Experiment, corpus: Corpus) -> Episodes:
    return fixed_episodes(
        corpus,
        support=experiment.tasks.support,
        episodes=experiment.evaluation.episodes,
        query=experiment.evaluation.query,
        seed=experiment.seed,
    )


def _validation(experiment: Experiment, corpus: Corpus, inner: InnerConfig):
    """validate(state) -> CCC, PCC, RMSE before and after adapting; CCC after it selects."""
    episodes = _episodes(experiment, corpus)
    sequences = protocol.tested_sequences(corpus, episodes)
    chunk = experiment.evaluation.chunk
    adapt = protocol.make_predictor(experiment.model, inner, chunk)

    def validate(state: TrainState) -> dict[str, float]:
        weights = _weights(state)
        heard = protocol.predict_songs(experiment.model, weights, corpus.tables, chunk)
        before = protocol.population_curves(heard, corpus, sequences)
        scored = {"population" if inner.steps == 0 else "unadapted": before}
        if inner.steps:
            scored["adapted"] = adapt(weights, corpus, episodes.support, episodes)[0]
        metrics = {}
        for row, curves in scored.items():
            each = sequence_metrics(curves, sequences.curve, sequences.valid, name=row)
            means = average(annotator_means(each, sequences.annotator))
            metrics |= {f"{row}/{name}": means[name] for name in ("ccc", "pcc", "rmse")}
            metrics["selection"] = means["ccc"]
        return metrics

    return validate


def _drawn(
    corpus: Corpus, sequences: Sequences, rows: dict[str, np.ndarray], count: int
) -> list[plots.ListenerCurves]:
    """The first tested song of `count` listeners, spread evenly over those there are."""
    listeners, first = np.unique(sequences.annotator, return_index=True)
    places = np.linspace(0, len(listeners) - 1, min(count, len(listeners))).round().astype(int)
    song_of = np.asarray(corpus.tables.song_of)
    return [
        plots.ListenerCurves(
            listener_id=corpus.annotator_ids[sequences.annotator[i]],
            song_id=corpus.song_ids[song_of[sequences.rating[i]]],
            rating=sequences.curve[i],
            population=rows["population"][i],
            adapted=rows["adapted"][i],
            control=rows["wrong_listener"][i],
            valid=sequences.valid[i],
        )
        for i in first[places]
    ]


def run(experiment: Experiment, workdir: Path, mode: str) -> tables.Results:
    """Trains (or, with mode "evaluate", restores what was trained) and evaluates."""
    (workdir / "figures").mkdir(exist_ok=True)
    _check_adapted(experiment)
    corpora = load_corpora(experiment)
    trained = (
        train(experiment, corpora, workdir) if mode == "train" else restore(experiment, workdir)
    )
    return evaluate(experiment, corpora, trained, workdir)
