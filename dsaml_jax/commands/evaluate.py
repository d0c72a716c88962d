"""--mode=evaluate: scores every method on the test split."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.evaluation.decoding import cue_decoding
from dsaml_jax.evaluation.ideal import truth_of
from dsaml_jax.evaluation.methods import (
    METHOD_ORDER,
    MethodCurves,
    personal_methods,
    supervised_methods,
)
from dsaml_jax.evaluation.protocols import EvalSet, make_eval_set
from dsaml_jax.evaluation.results import REFERENCE, Results, score_methods
from dsaml_jax.evaluation.songs_curve import check_songs_curve, songs_curve
from dsaml_jax.evaluation.widening import Widening, validation_widening
from dsaml_jax.reports.conclusion import decoding_table, summary_text
from dsaml_jax.reports.learning import inner_loop_figure
from dsaml_jax.reports.listeners import ListenerCurves, listener_figure
from dsaml_jax.reports.songs_curve import songs_curve_figure, songs_curve_table
from dsaml_jax.reports.tables import intervals_table
from dsaml_jax.runtime import processes
from dsaml_jax.runtime.files import write_json, write_text
from dsaml_jax.training.stages import Trained, check_patterns, restore

LOG = logging.getLogger(__name__)


def evaluate(experiment: Experiment, workdir: Path) -> dict[str, Results]:
    """Evaluates the weights of an earlier run of --mode=train; see `evaluate_methods`.

    Raises:
      UserError: there are none, or they were trained on other data.
    """
    check_patterns(experiment)
    corpora, tests = load(experiment)
    trained = restore(experiment, workdir, corpora)
    return evaluate_methods(experiment, corpora, tests, trained, workdir)


def load(experiment: Experiment) -> tuple[dict[str, Corpus], dict[str, EvalSet]]:
    """Loads the corpora by split and the test sets by protocol, the same in every process."""
    corpora = processes.process_zero_first(lambda: load_corpora(experiment))
    processes.check_agreement("data", {name: corpora[name].tables for name in corpora})
    return corpora, eval_sets(experiment, corpora[experiment.evaluation.split])


def eval_sets(experiment: Experiment, corpus: Corpus) -> dict[str, EvalSet]:
    """Returns a test set for each protocol; with consensus labels only one, "supervised"."""
    protocols = ("supervised",) if corpus.is_consensus else experiment.evaluation.protocols
    check_songs_curve(corpus, experiment.evaluation)
    return {
        protocol: make_eval_set(
            corpus,
            experiment.evaluation,
            support=experiment.tasks.support,
            seed=experiment.seed,
            source=experiment.evaluation.split,
            protocol=protocol,
        )
        for protocol in protocols
    }


def evaluate_methods(
    experiment: Experiment,
    corpora: Mapping[str, Corpus],
    tests: Mapping[str, EvalSet],
    trained: Trained,
    workdir: Path,
) -> dict[str, Results]:
    """Scores every method on every protocol's test set; writes tables and figures.

    The file names of the same-song protocol end in `_same_song`.

    Args:
      experiment: the config.
      corpora: by split; the mean of "train" is a baseline, and "validation" chooses the widening.
      tests: test sets by protocol.
      trained: the weights.
      workdir: gets `results*.json`, `results*.md`, and figures.

    Returns:
      The results by protocol.
    """
    every_result = {}
    widening = validation_widening(experiment, corpora["validation"], trained.population)
    for protocol, eval_set in tests.items():
        methods = _predict(experiment, corpora["train"], eval_set, trained, widening)
        is_personal = eval_set.episodes is not None
        results = score_methods(
            methods.curves,
            eval_set.sequences.curve,
            eval_set.sequences.valid,
            eval_set.sequences.unit,
            seed=experiment.seed,
            resamples=experiment.evaluation.resamples,
            unit="annotators" if is_personal else "songs",
            reference=REFERENCE if is_personal else "population",
            rmse_predictions=methods.rmse_curves,
            baseline=widening.strongest if widening else "population",
        )
        suffix = "_same_song" if protocol == "same_song" else ""
        figures = workdir / "figures"
        if methods.losses is not None:
            inner_loop_figure(figures / f"inner_loop{suffix}.png", methods.losses)
        if widening is not None and protocol == "cross_song":
            assert trained.meta is not None  # as above
            results = _with_diagnostics(experiment, corpora, trained, widening, results)
        if results.songs_curve is not None:
            songs_curve_figure(figures / "songs_curve.png", results.songs_curve)
        content = results.to_json() | {
            "protocol": protocol,
            "split": experiment.evaluation.split,
            "seed": experiment.seed,
            "validation": trained.validation,
            **_episode_counts(eval_set, methods),
        }
        if widening is not None:
            content["widening"] = dataclasses.asdict(widening)
        write_json(workdir / f"results{suffix}.json", content)
        write_text(workdir / f"results{suffix}.md", _text(results))
        shown = _representative(eval_set, methods, experiment.evaluation.figures)
        if shown:
            listener_figure(figures / f"listeners{suffix}.png", shown)
        scored = _summary(eval_set, methods, results)
        LOG.info("%s, %s: %s", experiment.evaluation.split, protocol, scored)
        every_result[protocol] = results
    return every_result


def _with_diagnostics(
    experiment: Experiment,
    corpora: Mapping[str, Corpus],
    trained: Trained,
    widening: Widening,
    results: Results,
) -> Results:
    """Adds the gain by number of songs, if asked for, and what features tell of true cues."""
    assert trained.meta is not None
    curve = None
    if experiment.evaluation.songs_curve:
        corpus = corpora[experiment.evaluation.split]
        curve = songs_curve(experiment, corpus, trained.population, trained.meta, widening)
    models = {"population": trained.population, "meta": trained.meta}
    return dataclasses.replace(
        results, songs_curve=curve, cue_decoding=cue_decoding(experiment, corpora, models)
    )


def _text(results: Results) -> str:
    """Returns the content of `results.md`."""
    parts = [
        summary_text(results, METHOD_ORDER),
        f"The means with their intervals:\n\n{intervals_table(results, METHOD_ORDER)}",
    ]
    if results.songs_curve is not None:
        parts.append(
            f"The gain by number of support songs:\n\n{songs_curve_table(results.songs_curve)}"
        )
    if results.cue_decoding is not None:
        parts.append(
            "R² of the true cues of validation songs, decoded linearly from the model's inputs and "
            "from what the encoders make of them: of a song's mean, and of the deviations from it "
            f"within songs:\n\n{decoding_table(results.cue_decoding)}"
        )
    return "\n\n".join(parts) + "\n"


def _predict(
    experiment: Experiment,
    train: Corpus,
    eval_set: EvalSet,
    trained: Trained,
    widening: Widening | None,
) -> MethodCurves:
    """Predicts the test sequences with every method that the labels allow."""
    if widening is None:
        return supervised_methods(experiment.model, train, eval_set, trained.population)
    assert trained.meta is not None  # personal labels have a meta stage
    return personal_methods(
        experiment.model,
        experiment.inner,
        train,
        eval_set,
        trained.population,
        trained.meta,
        chunk=experiment.evaluation.chunk,
        widening=widening,
        truth=truth_of(experiment.data, eval_set),
    )


def _episode_counts(eval_set: EvalSet, methods: MethodCurves) -> dict[str, Any]:
    """Returns what `results.json` says of the episodes; nothing with consensus labels."""
    if eval_set.episodes is None:
        return {}
    return {
        "control": {
            "episodes": len(eval_set.episodes.annotator),
            "same_songs": int(eval_set.episodes.same_songs.sum()),
        },
        "segments_nobody_else_rated": methods.segments_without_other_raters,
    }


def _summary(eval_set: EvalSet, methods: MethodCurves, results: Results) -> str:
    counts = (
        f"{results.counts[results.unit]} {results.unit}, {results.counts['sequences']} sequences"
    )
    if eval_set.episodes is None:
        return counts
    return (
        f"{counts}, {len(eval_set.episodes.annotator)} episodes; the control rated the same songs "
        f"in {eval_set.episodes.same_songs.sum()}; {methods.segments_without_other_raters} "
        "segments without other raters"
    )


def _representative(eval_set: EvalSet, methods: MethodCurves, count: int) -> list[ListenerCurves]:
    """Returns the first tested sequence of `count` listeners, evenly spaced over all of them."""
    corpus, sequences, curves = eval_set.corpus, eval_set.sequences, methods.curves
    units, first = np.unique(sequences.unit, return_index=True)
    places = np.linspace(0, len(units) - 1, min(count, len(units))).round().astype(int)
    annotator_of = np.asarray(corpus.tables.annotator_of)[sequences.rating]

    def curves_of(i: int) -> ListenerCurves:
        end = 1 + int(np.flatnonzero(sequences.valid[i]).max(initial=0))

        def curve(method: str) -> np.ndarray | None:
            return curves[method][i, :end] if method in curves else None

        return ListenerCurves(
            listener_id=corpus.annotator_ids[annotator_of[i]],
            song_id=corpus.song_ids[sequences.song[i]],
            rating=sequences.curve[i, :end],
            population=curves["population"][i, :end],
            adapted=curve("adapted"),
            control=curve("wrong_listener"),
            valid=sequences.valid[i, :end],
        )

    return [curves_of(i) for i in first[places]]
