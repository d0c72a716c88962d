"""--mode=evaluate: scores every method on the test split."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.evaluation import results as results_module
from dsaml_jax.evaluation.eval_set import EvalSet, make_eval_set
from dsaml_jax.evaluation.methods import (
    METHOD_ORDER,
    MethodCurves,
    personal_methods,
    supervised_methods,
)
from dsaml_jax.reports import figures
from dsaml_jax.runtime import processes
from dsaml_jax.runtime.files import write_json, write_text
from dsaml_jax.training.stages import Trained, check_inner, restore

LOG = logging.getLogger(__name__)


def evaluate(experiment: Experiment, workdir: Path) -> dict[str, results_module.Results]:
    """Evaluates the weights of an earlier run of --mode=train; see `evaluate_methods`.

    Raises:
      UserError: there are none, or they were trained on other data.
    """
    check_inner(experiment.inner, experiment.model, experiment.audio)
    corpora, tests = load(experiment)
    trained = restore(experiment, workdir, corpora)
    return evaluate_methods(experiment, corpora["train"], tests, trained, workdir)


def load(experiment: Experiment) -> tuple[dict[str, Corpus], dict[str, EvalSet]]:
    """Loads the corpora by split, and what is tested by protocol; the same in every process."""
    corpora = processes.process_zero_first(lambda: load_corpora(experiment))
    processes.check_agreement("data", {name: corpora[name].tables for name in corpora})
    return corpora, eval_sets(experiment, corpora["test"])


def evaluate_methods(
    experiment: Experiment,
    train: Corpus,
    tests: Mapping[str, EvalSet],
    trained: Trained,
    workdir: Path,
) -> dict[str, results_module.Results]:
    """Scores every method on every protocol's test set; writes tables and figures.

    Args:
      experiment: the config.
      train: the training corpus, whose mean is a baseline.
      tests: by protocol.
      trained: the weights.
      workdir: gets `results*.json`, `results*.md`, and figures.

    Returns:
      The results by protocol.
    """
    return {
        name: _evaluate_protocol(experiment, train, eval_set, trained, workdir, name)
        for name, eval_set in tests.items()
    }


def eval_sets(experiment: Experiment, corpus: Corpus) -> dict[str, EvalSet]:
    """What is tested: a trial for each protocol, or, with consensus labels, one, "supervised"."""
    if corpus.is_consensus:
        return {"supervised": make_eval_set(experiment, corpus, "test")}
    return {
        protocol: make_eval_set(experiment, corpus, "test", protocol)
        for protocol in experiment.evaluation.protocols
    }


def _evaluate_protocol(
    experiment: Experiment,
    train: Corpus,
    eval_set: EvalSet,
    trained: Trained,
    workdir: Path,
    name: str,
) -> results_module.Results:
    """Scores every row of one trial; writes `results.json`, `results.md` and figures.

    The file names of the same-song protocol end in `_same_song`.
    """
    if eval_set.episodes is None:
        rows = supervised_methods(experiment, train, eval_set, trained.population)
        unit, reference = "songs", "population"
    else:
        rows = personal_methods(experiment, train, eval_set, trained.population, trained.meta)
        unit, reference = "annotators", results_module.REFERENCE
    sequences = eval_set.sequences
    results = results_module.score_methods(
        rows.curves,
        sequences.curve,
        sequences.valid,
        sequences.unit,
        seed=experiment.seed,
        resamples=experiment.evaluation.resamples,
        unit=unit,
        reference=reference,
    )
    suffix = "_same_song" if name == "same_song" else ""
    content = results.to_json() | {
        "protocol": name,
        "seed": experiment.seed,
        "validation": trained.validation,
    }
    if eval_set.episodes is not None:
        content |= {
            "control": {
                "episodes": len(eval_set.episodes.annotator),
                "same_songs": int(eval_set.episodes.same_songs.sum()),
            },
            "segments_nobody_else_rated": rows.alone,
        }
        figures.inner_loop_figure(workdir / "figures" / f"inner_loop{suffix}.png", rows.losses)
    write_json(workdir / f"results{suffix}.json", content)
    write_text(
        workdir / f"results{suffix}.md",
        f"{results.to_markdown(METHOD_ORDER)}\n\nThe means with their intervals:\n\n"
        f"{results.intervals_to_markdown(METHOD_ORDER)}\n",
    )
    figures.listener_figure(
        workdir / "figures" / f"listeners{suffix}.png",
        _drawn(eval_set, rows, experiment.evaluation.figures),
    )
    LOG.info("test, %s: %s", name, _summary(eval_set, rows, results))
    return results


def _summary(eval_set: EvalSet, rows: MethodCurves, results: results_module.Results) -> str:
    counts = (
        f"{results.counts[results.unit]} {results.unit}, {results.counts['sequences']} sequences"
    )
    if eval_set.episodes is None:
        return counts
    return (
        f"{counts}, {len(eval_set.episodes.annotator)} episodes; the control has the same songs in "
        f"{eval_set.episodes.same_songs.sum()}; {rows.alone} segments that nobody else rated"
    )


def _drawn(eval_set: EvalSet, rows: MethodCurves, count: int) -> list[figures.ListenerCurves]:
    """The first tested sequence of `count` units, spread evenly over those there are."""
    corpus, sequences, curves = eval_set.corpus, eval_set.sequences, rows.curves
    units, first = np.unique(sequences.unit, return_index=True)
    places = np.linspace(0, len(units) - 1, min(count, len(units))).round().astype(int)
    annotator_of = np.asarray(corpus.tables.annotator_of)[sequences.rating]

    def one(i: int) -> figures.ListenerCurves:
        end = 1 + int(np.flatnonzero(sequences.valid[i]).max(initial=0))
        drawn = {
            name: curves[row][i, :end] if row in curves else None
            for name, row in (
                ("population", "population"),
                ("adapted", "adapted"),
                ("control", "wrong_listener"),
            )
        }
        return figures.ListenerCurves(
            listener_id=corpus.annotator_ids[annotator_of[i]],
            song_id=corpus.song_ids[sequences.song[i]],
            rating=sequences.curve[i, :end],
            valid=sequences.valid[i, :end],
            **drawn,
        )

    return [one(i) for i in first[places]]
