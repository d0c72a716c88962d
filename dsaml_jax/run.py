"""A whole run: data, training, evaluation, figures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from dsaml_jax import distributed, plots
from dsaml_jax.corpus import Corpus
from dsaml_jax.data import load_corpora
from dsaml_jax.evaluation import tables
from dsaml_jax.evaluation.protocol import Trial, make_trial
from dsaml_jax.evaluation.rows import ROW_ORDER, Rows, personal_rows, supervised_rows
from dsaml_jax.experiment import Experiment
from dsaml_jax.files import write_json, write_text
from dsaml_jax.stages import Trained, check_inner, restore, train
from dsaml_jax.training.devices import layout_of, task_mesh

LOG = logging.getLogger(__name__)


def run(experiment: Experiment, workdir: Path, mode: str) -> dict[str, tables.Results]:
    """Trains (or, with mode "evaluate", restores what was trained) and evaluates.

    Returns:
      The results of each test: see `evaluate`.
    """
    check_inner(experiment)
    if mode == "train":
        layout_of(experiment.tasks.meta_batch, experiment.tasks.at_once, task_mesh())
    corpora = distributed.one_before_others(lambda: load_corpora(experiment))
    distributed.check_agreement("data", {name: corpora[name].tables for name in corpora})
    # Trials are made first: what they refuse shall not be found out after training.
    trials = trials_of(experiment, corpora["test"])
    if mode == "train":
        corpora["train"].scaling.save(workdir / "embedding_scaling.npz")
        trained = train(experiment, corpora, workdir)
    else:
        trained = restore(experiment, workdir, corpora)
    return {
        name: evaluate(experiment, corpora["train"], trial, trained, workdir, name)
        for name, trial in trials.items()
    }


def trials_of(experiment: Experiment, corpus: Corpus) -> dict[str, Trial]:
    """What is tested: a trial for each protocol, or, with consensus labels, one, "supervised"."""
    if corpus.is_consensus:
        return {"supervised": make_trial(experiment, corpus, "test")}
    return {
        protocol: make_trial(experiment, corpus, "test", protocol)
        for protocol in experiment.evaluation.protocols
    }


def evaluate(
    experiment: Experiment,
    train: Corpus,
    trial: Trial,
    trained: Trained,
    workdir: Path,
    name: str,
) -> tables.Results:
    """Scores every row of one trial; writes `results.json`, `results.md` and figures.

    The file names of the same-song protocol end in `_same_song`.
    """
    if trial.episodes is None:
        rows = supervised_rows(experiment, train, trial, trained.population)
        unit, reference = "songs", "population"
    else:
        rows = personal_rows(experiment, train, trial, trained.population, trained.meta)
        unit, reference = "annotators", tables.REFERENCE
    sequences = trial.sequences
    results = tables.compare(
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
    if trial.episodes is not None:
        content |= {
            "control": {
                "episodes": len(trial.episodes.annotator),
                "same_songs": int(trial.episodes.same_songs.sum()),
            },
            "segments_nobody_else_rated": rows.alone,
        }
        plots.inner_loop_figure(workdir / "figures" / f"inner_loop{suffix}.png", rows.losses)
    write_json(workdir / f"results{suffix}.json", content)
    write_text(
        workdir / f"results{suffix}.md",
        f"{results.to_markdown(ROW_ORDER)}\n\nThe means with their intervals:\n\n"
        f"{results.intervals_to_markdown(ROW_ORDER)}\n",
    )
    plots.listener_figure(
        workdir / "figures" / f"listeners{suffix}.png",
        _drawn(trial, rows, experiment.evaluation.figures),
    )
    LOG.info("test, %s: %s", name, _summary(trial, rows, results))
    return results


def _summary(trial: Trial, rows: Rows, results: tables.Results) -> str:
    counts = (
        f"{results.counts[results.unit]} {results.unit}, {results.counts['sequences']} sequences"
    )
    if trial.episodes is None:
        return counts
    return (
        f"{counts}, {len(trial.episodes.annotator)} episodes; the control has the same songs in "
        f"{trial.episodes.same_songs.sum()}; {rows.alone} segments that nobody else rated"
    )


def _drawn(trial: Trial, rows: Rows, count: int) -> list[plots.ListenerCurves]:
    """The first tested sequence of `count` units, spread evenly over those there are."""
    corpus, sequences, curves = trial.corpus, trial.sequences, rows.curves
    units, first = np.unique(sequences.unit, return_index=True)
    places = np.linspace(0, len(units) - 1, min(count, len(units))).round().astype(int)
    annotator_of = np.asarray(corpus.tables.annotator_of)[sequences.rating]

    def one(i: int) -> plots.ListenerCurves:
        end = 1 + int(np.flatnonzero(sequences.valid[i]).max(initial=0))
        drawn = {
            name: curves[row][i, :end] if row in curves else None
            for name, row in (
                ("population", "population"),
                ("adapted", "adapted"),
                ("control", "wrong_listener"),
            )
        }
        return plots.ListenerCurves(
            listener_id=corpus.annotator_ids[annotator_of[i]],
            song_id=corpus.song_ids[sequences.song[i]],
            rating=sequences.curve[i, :end],
            valid=sequences.valid[i, :end],
            **drawn,
        )

    return [one(i) for i in first[places]]
