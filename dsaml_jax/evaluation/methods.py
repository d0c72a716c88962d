"""The rows of the table: ways of predicting the same sequences.

    constant        the training ratings' mean, whatever the song
    population      the population model, the same for everybody
    shifted         population, moved by its mean error on the support
    unadapted       the meta-learned weights as they are
    fine_tuned      the population model after the same inner loop on the support
    wrong_listener  the meta-learned weights, adapted to ANOTHER annotator of the support's songs
    adapted         the meta-learned weights, adapted to the support
    consensus       the mean of the OTHER people who rated the song: the ceiling of disagreement
    oracle          what the listener perceives before rating noise; simulated listeners only

With consensus labels there is nobody to adapt to: `constant`, `population` and, of simulated songs,
`oracle`, the true curve of the song.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.evaluation.consensus import consensus_curves
from dsaml_jax.evaluation.eval_set import EvalSet, Weights, make_predictor, predict_windows
from dsaml_jax.evaluation.sequences import Sequences
from dsaml_jax.evaluation.windows import splice_windows
from dsaml_jax.meta import MetaParams

METHOD_ORDER = (
    "constant",
    "population",
    "shifted",
    "fine_tuned",
    "unadapted",
    "wrong_listener",
    "adapted",
    "consensus",
    "oracle",
)


@dataclasses.dataclass(frozen=True)
class MethodCurves:
    """Attributes:
    curves: {row: [M, L, 2]}.
    losses: [E, K + 1] on the support in the inner loop of `adapted`; None without one.
    alone: valid segments of the sequences that nobody else rated, where `consensus` is constant.
    """

    curves: dict[str, np.ndarray]
    losses: np.ndarray | None = None
    alone: int = 0


def supervised_methods(
    experiment: Experiment, train: Corpus, eval_set: EvalSet, population: Weights
) -> MethodCurves:
    """The rows that know nothing of the listener."""
    window_predictions = predict_windows(experiment.model, population, eval_set)
    rows = {
        "constant": np.broadcast_to(training_mean(train), eval_set.sequences.curve.shape),
        "population": splice_windows(window_predictions, eval_set.plan),
    }
    return MethodCurves(rows | _oracle(eval_set))


def personal_methods(
    experiment: Experiment, train: Corpus, eval_set: EvalSet, population: Weights, meta: Weights
) -> MethodCurves:
    """All rows of annotator tasks."""
    predict = make_predictor(experiment.model, experiment.inner, experiment.evaluation.chunk)
    support, control = eval_set.episodes.support, eval_set.episodes.control
    window_predictions = predict_windows(experiment.model, population, eval_set)
    plain = splice_windows(window_predictions, eval_set.plan)
    shift = support_error(window_predictions, eval_set)[eval_set.sequences.episode]
    adapted, losses = predict(meta, eval_set, support)
    rates = experiment.inner.loop().initial_rates(population.params)
    constant = training_mean(train)
    consensus, alone = consensus_curves(eval_set.corpus, eval_set.sequences, constant)
    rows = {
        "constant": np.broadcast_to(constant, eval_set.sequences.curve.shape),
        "population": plain,
        "shifted": plain + shift[:, None],
        "fine_tuned": predict(
            Weights(MetaParams(population.params, rates), population.batch_stats), eval_set, support
        )[0],
        "unadapted": splice_windows(
            predict_windows(experiment.model, meta, eval_set), eval_set.plan
        ),
        "wrong_listener": predict(meta, eval_set, control)[0],
        "adapted": adapted,
        "consensus": consensus,
    }
    return MethodCurves(rows | _oracle(eval_set), losses, alone)


def support_error(window_predictions: np.ndarray, eval_set: EvalSet) -> np.ndarray:
    """[E, 2]: mean over the support clips' segments of rating minus prediction.

    Args:
      window_predictions: [U, S, 2], predictions of the trial's windows; the first N are the songs' first clips.
      eval_set: with episodes.
    """
    tables = eval_set.corpus.tables
    support = eval_set.episodes.support
    error = (
        np.asarray(tables.curve)[support] - window_predictions[np.asarray(tables.song_of)[support]]
    )
    weight = np.asarray(tables.valid)[support][..., None]
    return (weight * error).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)


def training_mean(corpus: Corpus) -> np.ndarray:
    """[2]: mean of all ratings of the training corpus; the constant baseline."""
    valid = np.asarray(corpus.tables.valid)
    return np.asarray(corpus.tables.curve)[valid].mean(0)


def _oracle(eval_set: EvalSet) -> dict[str, np.ndarray]:
    if eval_set.corpus.noise_free is None:
        return {}
    sequences: Sequences = eval_set.sequences
    return {"oracle": eval_set.corpus.noise_free[sequences.rating, sequences.first :]}
