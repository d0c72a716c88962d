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

from dsaml_jax.corpus import Corpus
from dsaml_jax.evaluation.consensus import consensus_curves
from dsaml_jax.evaluation.protocol import Trial, Weights, make_predictor, predict_windows
from dsaml_jax.evaluation.sequences import Sequences
from dsaml_jax.evaluation.windows import spliced
from dsaml_jax.experiment import Experiment

ROW_ORDER = (
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
class Rows:
    """Attributes:
    curves: {row: [M, L, 2]}.
    losses: [E, K + 1] on the support in the inner loop of `adapted`; None without one.
    alone: valid segments of the sequences that nobody else rated, where `consensus` is constant.
    """

    curves: dict[str, np.ndarray]
    losses: np.ndarray | None = None
    alone: int = 0


def supervised_rows(
    experiment: Experiment, train: Corpus, trial: Trial, population: Weights
) -> Rows:
    """The rows that know nothing of the listener."""
    heard = predict_windows(experiment.model, population, trial)
    rows = {
        "constant": np.broadcast_to(training_mean(train), trial.sequences.curve.shape),
        "population": spliced(heard, trial.reading),
    }
    return Rows(rows | _oracle(trial))


def personal_rows(
    experiment: Experiment, train: Corpus, trial: Trial, population: Weights, meta: Weights
) -> Rows:
    """All rows of annotator tasks."""
    predict = make_predictor(experiment.model, experiment.inner, experiment.evaluation.chunk)
    support, control = trial.episodes.support, trial.episodes.control
    heard = predict_windows(experiment.model, population, trial)
    plain = spliced(heard, trial.reading)
    shift = support_error(heard, trial)[trial.sequences.episode]
    adapted, losses = predict(meta, trial, support)
    rates = experiment.inner.loop().initial_rates(population.params)
    constant = training_mean(train)
    consensus, alone = consensus_curves(trial.corpus, trial.sequences, constant)
    rows = {
        "constant": np.broadcast_to(constant, trial.sequences.curve.shape),
        "population": plain,
        "shifted": plain + shift[:, None],
        "fine_tuned": predict(population._replace(rates=rates), trial, support)[0],
        "unadapted": spliced(predict_windows(experiment.model, meta, trial), trial.reading),
        "wrong_listener": predict(meta, trial, control)[0],
        "adapted": adapted,
        "consensus": consensus,
    }
    return Rows(rows | _oracle(trial), losses, alone)


def support_error(heard: np.ndarray, trial: Trial) -> np.ndarray:
    """[E, 2]: mean over the support clips' segments of rating minus prediction.

    Args:
      heard: [U, S, 2], predictions of the trial's windows; the first N are the songs' first clips.
      trial: with episodes.
    """
    tables = trial.corpus.tables
    support = trial.episodes.support
    error = np.asarray(tables.curve)[support] - heard[np.asarray(tables.song_of)[support]]
    weight = np.asarray(tables.valid)[support][..., None]
    return (weight * error).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)


def training_mean(corpus: Corpus) -> np.ndarray:
    """[2]: mean of all ratings of the training corpus; the constant baseline."""
    valid = np.asarray(corpus.tables.valid)
    return np.asarray(corpus.tables.curve)[valid].mean(0)


def _oracle(trial: Trial) -> dict[str, np.ndarray]:
    if trial.corpus.noise_free is None:
        return {}
    sequences: Sequences = trial.sequences
    return {"oracle": trial.corpus.noise_free[sequences.rating, sequences.first :]}
