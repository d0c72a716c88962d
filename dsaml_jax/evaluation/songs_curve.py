"""How the gain of adapting grows with the number of support songs.

Every number of songs is tested on the same sequences: those of annotators who rated more songs than
the largest number. Supports are nested: the first k of an annotator's songs in one random order.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.config.experiment import EvaluationConfig, Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.bootstrap import Interval, bootstrap_columns, bootstrap_ratio
from dsaml_jax.evaluation.ideal import ideal_adapted, ideal_population, truth_of
from dsaml_jax.evaluation.metrics import annotator_means, sequence_metrics
from dsaml_jax.evaluation.predictor import make_predictor, predict_windows
from dsaml_jax.evaluation.protocols import make_eval_set
from dsaml_jax.evaluation.widening import Widening
from dsaml_jax.model.weights import Weights


@dataclasses.dataclass(frozen=True)
class SongsCurve:
    """Gains in CCC by number of support songs.

    Attributes:
      songs: [n], numbers of support songs, in increasing order.
      adapted: [n], adapted minus baseline, over annotators.
      ideal: [n], ideal_adapted minus ideal_population; () without a known simulator.
      share: [n], adapted / ideal, a ratio of means; () without a known simulator.
      baseline: the method from which `adapted` is measured.
      annotators: number of annotators.
      sequences: number of tested sequences.
    """

    songs: tuple[int, ...]
    adapted: tuple[Interval, ...]
    ideal: tuple[Interval, ...]
    share: tuple[Interval, ...]
    baseline: str
    annotators: int
    sequences: int


def check_songs_curve(corpus: Corpus, evaluation: EvaluationConfig) -> None:
    """Raises UserError unless two annotators rated enough songs for `evaluation.songs_curve`."""
    most = max(evaluation.songs_curve, default=0)
    counts = np.asarray(corpus.tables.counts)
    if most and not corpus.is_consensus and (counts > most).sum() < 2:
        raise UserError(
            f"evaluation.songs_curve has {most}, but {(counts > most).sum()} annotators rated more "
            f"songs than that in the test split (the most active rated {counts.max()}); expected "
            "at least 2: lower it."
        )


def songs_curve(
    experiment: Experiment,
    corpus: Corpus,
    population: Weights,
    meta: Weights,
    widening: Widening,
) -> SongsCurve:
    """Adapts to each number of songs and compares with the same prediction for everybody.

    Args:
      experiment: its `evaluation.songs_curve`, model and inner loop apply.
      corpus: the test split.
      population: weights of the population model.
      meta: the meta-learned weights.
      widening: of the population model, from validation.
    """
    evaluation, model = experiment.evaluation, experiment.model
    numbers = tuple(sorted(evaluation.songs_curve))
    eval_set = make_eval_set(
        corpus,
        dataclasses.replace(evaluation, episodes=1),
        support=numbers[-1],
        seed=experiment.seed,
        source="test",
        active_only=True,
    )
    sequences, episodes = eval_set.sequences, eval_set.episodes
    assert episodes is not None, "personal labels have episodes"
    truth = truth_of(experiment.data, eval_set)
    curves = eval_set.plan.splice(predict_windows(model, population, eval_set))
    if widening.strongest == "population_widened":
        curves = widening.apply(curves, sequences.valid)

    def ccc(curves: np.ndarray, name: str) -> np.ndarray:
        scores = sequence_metrics(curves, sequences.curve, sequences.valid, name)
        return annotator_means(scores, sequences.unit)["ccc"]

    # Fewer episodes at once, as they adapt to more clips; the same number for all supports, so that
    # the prediction is compiled once.
    chunk = max(1, evaluation.chunk * experiment.tasks.support // numbers[-1])
    predict = make_predictor(model, experiment.inner, chunk)

    def adapt(support: np.ndarray) -> np.ndarray:
        return predict(meta, eval_set, support)[0]

    supports = {k: episodes.support[:, :k] for k in numbers}
    baseline = ccc(curves, widening.strongest)
    adapted = [ccc(adapt(s), f"adapted to {k} songs") - baseline for k, s in supports.items()]
    ideal: list[np.ndarray] = []
    if truth is not None:
        unknown = ccc(ideal_population(truth, eval_set).ccc, "ideal_population")
        known = (ideal_adapted(truth, eval_set, support).ccc for support in supports.values())
        ideal = [ccc(curves, "ideal_adapted") - unknown for curves in known]
    drawn = experiment.seed, evaluation.resamples
    intervals = bootstrap_columns(np.stack(adapted + ideal, axis=1), *drawn)
    return SongsCurve(
        songs=numbers,
        adapted=tuple(intervals[: len(numbers)]),
        ideal=tuple(intervals[len(numbers) :]),
        share=tuple(bootstrap_ratio(*pair, *drawn) for pair in zip(adapted, ideal, strict=False)),
        baseline=widening.strongest,
        annotators=len(np.unique(sequences.unit)),
        sequences=len(sequences.rating),
    )
