"""A whole run: data, training, evaluation, figures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.evaluation import results as results_module
from dsaml_jax.evaluation.methods import (
    METHOD_ORDER,
    MethodCurves,
    personal_methods,
    supervised_methods,
)
from dsaml_jax.evaluation.protocols import EvalSet, make_eval_set
from dsaml_jax.reports.learning import inner_loop_figure
from dsaml_jax.reports.listeners import ListenerCurves, listener_figure
from dsaml_jax.reports.tables import intervals_table, results_table
from dsaml_jax.runtime import processes
from dsaml_jax.runtime.files import write_json, write_text
from dsaml_jax.training.devices import task_layout, task_mesh
from dsaml_jax.training.stages import Trained, check_inner, restore, train

LOG = logging.getLogger(__name__)


def run(experiment: Experiment, workdir: Path, mode: str) -> dict[str, results_module.Results]:
    """Trains (or, with mode "evaluate", restores what was trained) and evaluates.

    Returns:
      The results of each test: see `evaluate`.
    """
    check_inner(experiment)
    if mode == "train":
        task_layout(experiment.tasks.meta_batch, experiment.tasks.tasks_per_device, task_mesh())
    corpora = processes.process_zero_first(lambda: load_corpora(experiment))
    processes.check_agreement("data", {name: corpora[name].tables for name in corpora})
    # Trials are made first: what they refuse shall not be found out after training.
    tests = eval_sets(experiment, corpora["test"])
    if mode == "train":
        corpora["train"].scaling.save(workdir / "embedding_scaling.npz")
        trained = train(experiment, corpora, workdir)
    else:
        trained = restore(experiment, workdir, corpora)
    return {
        name: evaluate(experiment, corpora["train"], eval_set, trained, workdir, name)
        for name, eval_set in tests.items()
    }


def eval_sets(experiment: Experiment, corpus: Corpus) -> dict[str, EvalSet]:
    """What is tested: a trial for each protocol, or, with consensus labels, one, "supervised"."""

    def make(protocol: str) -> EvalSet:
        return make_eval_set(
            corpus,
            experiment.evaluation,
            support=experiment.tasks.support,
            seed=experiment.seed,
            source="test",
            protocol=protocol,
        )

    protocols = ("supervised",) if corpus.is_consensus else experiment.evaluation.protocols
    return {protocol: make(protocol) for protocol in protocols}


def evaluate(
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
        rows = supervised_methods(experiment.model, train, eval_set, trained.population)
        unit, reference = "songs", "population"
    else:
        assert trained.meta is not None, "personal labels have a meta stage"
        rows = personal_methods(
            experiment.model,
            experiment.inner,
            train,
            eval_set,
            trained.population,
            trained.meta,
            chunk=experiment.evaluation.chunk,
        )
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
            "segments_nobody_else_rated": rows.segments_without_other_raters,
        }
        inner_loop_figure(workdir / "figures" / f"inner_loop{suffix}.png", rows.losses)
    write_json(workdir / f"results{suffix}.json", content)
    write_text(
        workdir / f"results{suffix}.md",
        f"{results_table(results, METHOD_ORDER)}\n\nThe means with their intervals:\n\n"
        f"{intervals_table(results, METHOD_ORDER)}\n",
    )
    listener_figure(
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
        f"{eval_set.episodes.same_songs.sum()}; "
        f"{rows.segments_without_other_raters} segments that nobody else rated"
    )


def _drawn(eval_set: EvalSet, rows: MethodCurves, count: int) -> list[ListenerCurves]:
    """The first tested sequence of `count` units, spread evenly over those there are."""
    corpus, sequences, curves = eval_set.corpus, eval_set.sequences, rows.curves
    units, first = np.unique(sequences.unit, return_index=True)
    places = np.linspace(0, len(units) - 1, min(count, len(units))).round().astype(int)
    annotator_of = np.asarray(corpus.tables.annotator_of)[sequences.rating]

    def one(i: int) -> ListenerCurves:
        end = 1 + int(np.flatnonzero(sequences.valid[i]).max(initial=0))
        drawn = {
            name: curves[row][i, :end] if row in curves else None
            for name, row in (
                ("population", "population"),
                ("adapted", "adapted"),
                ("control", "wrong_listener"),
            )
        }
        return ListenerCurves(
            listener_id=corpus.annotator_ids[annotator_of[i]],
            song_id=corpus.song_ids[sequences.song[i]],
            rating=sequences.curve[i, :end],
            valid=sequences.valid[i, :end],
            **drawn,
        )

    return [one(i) for i in first[places]]
