"""The methods that are compared: ways to predict the same sequences.

    constant              the mean of the training ratings, for every song
    population            the population model, the same for every annotator
    population_widened    population, widened around its mean by factors that validation chose, the
                          same for every annotator
    shifted               population, shifted by its mean error on the support
    fine_tuned            the population model after the same inner loop on the support
    unadapted             the meta-learned weights before adaptation
    wrong_listener        the meta-learned weights, adapted to ANOTHER annotator of the same songs
    adapted               the meta-learned weights, adapted to the support
    consensus             the mean of the OTHER annotators of the song: what they agree on

For simulated listeners only, and cross-song except for the oracle:

    ideal_population      the best prediction for an unknown listener, from the songs' true cues
    ideal_wrong_listener  the same after the ratings that wrong_listener adapts to
    ideal_adapted         the same after the support: the ceiling of adapting
    oracle                what the listener perceives before rating noise

CCC and PCC of an ideal method are those of the curve with the best expected CCC; its RMSE is that
of the mean curve, which has the best expected squared error.

With consensus labels there is no one to adapt to, so the methods are `constant`, `population` and,
for simulated songs, `oracle`: the true curve of the song.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.tables import Tables
from dsaml_jax.data.tasks import Episodes
from dsaml_jax.datasets.synthetic.ideal import IdealCurves
from dsaml_jax.evaluation.consensus import consensus_curves
from dsaml_jax.evaluation.ideal import Truth, ideal_adapted, ideal_population
from dsaml_jax.evaluation.predictor import make_predictor, predict_windows
from dsaml_jax.evaluation.protocols import EvalSet
from dsaml_jax.evaluation.widening import Widening
from dsaml_jax.meta import MetaParams
from dsaml_jax.model import DSAMLConfig
from dsaml_jax.model.weights import Weights

IDEAL_METHODS = ("ideal_population", "ideal_wrong_listener", "ideal_adapted")

METHOD_ORDER = (
    "constant",
    "population",
    "population_widened",
    "shifted",
    "fine_tuned",
    "unadapted",
    "wrong_listener",
    "adapted",
    "consensus",
    *IDEAL_METHODS,
    "oracle",
)


@dataclasses.dataclass(frozen=True)
class MethodCurves:
    """The predictions of every method.

    Attributes:
      curves: {method: [M, L, 2]}.
      losses: [E, K + 1], support losses along the inner loop of `adapted`; None without adaptation.
      segments_without_other_raters: number of valid segments that no other annotator rated, where
        `consensus` falls back to `constant`.
      rmse_curves: {method: [M, L, 2]}, the curves whose RMSE counts, for the ideal methods.
    """

    curves: dict[str, np.ndarray]
    losses: np.ndarray | None = None
    segments_without_other_raters: int = 0
    rmse_curves: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def supervised_methods(
    model: DSAMLConfig, train: Corpus, eval_set: EvalSet, population: Weights
) -> MethodCurves:
    """Predicts with the methods that do not depend on the listener.

    Args:
      model: the model.
      train: the training split, for `constant`.
      eval_set: the tested sequences.
      population: weights of the population model.
    """
    curves = {
        "constant": np.broadcast_to(training_mean(train), eval_set.sequences.curve.shape),
        "population": eval_set.plan.splice(predict_windows(model, population, eval_set)),
    }
    return MethodCurves(curves | _oracle(eval_set))


def personal_methods(
    model: DSAMLConfig,
    inner: InnerConfig,
    train: Corpus,
    eval_set: EvalSet,
    population: Weights,
    meta: Weights,
    *,
    chunk: int,
    widening: Widening,
    truth: Truth | None = None,
) -> MethodCurves:
    """Predicts with all methods.

    Args:
      model: the model.
      inner: the inner loop of the adapted methods.
      train: the training split, for `constant`.
      eval_set: the tested sequences, with episodes.
      population: weights of the population model.
      meta: the meta-learned weights.
      chunk: episodes computed at once.
      widening: of the population model, from validation.
      truth: what the ideal methods know; None to omit them.
    """
    episodes, plan = eval_set.episodes, eval_set.plan
    assert episodes is not None, "consensus labels have supervised_methods"
    predict = make_predictor(model, inner, chunk)
    population_windows = predict_windows(model, population, eval_set)
    population_curves = plan.splice(population_windows)
    shift = support_error(population_windows, eval_set.corpus.tables, episodes.support)
    adapted, losses = predict(meta, eval_set, episodes.support)
    initial_rates = inner.loop().initial_rates(population.params)
    start = population._replace(meta_params=MetaParams(population.params, initial_rates))
    constant = training_mean(train)
    consensus, segments_without_other_raters = consensus_curves(
        eval_set.corpus, eval_set.sequences, constant
    )
    curves = {
        "constant": np.broadcast_to(constant, eval_set.sequences.curve.shape),
        "population": population_curves,
        "population_widened": widening.apply(population_curves, eval_set.sequences.valid),
        "shifted": population_curves + shift[eval_set.sequences.episode][:, None],
        "fine_tuned": predict(start, eval_set, episodes.support)[0],
        "unadapted": plan.splice(predict_windows(model, meta, eval_set)),
        "wrong_listener": predict(meta, eval_set, episodes.control)[0],
        "adapted": adapted,
        "consensus": consensus,
    }
    ideal = {} if truth is None else _ideal(truth, eval_set, episodes)
    return MethodCurves(
        curves | {method: each.ccc for method, each in ideal.items()} | _oracle(eval_set),
        losses,
        segments_without_other_raters,
        {method: each.rmse for method, each in ideal.items()},
    )


def support_error(windows: np.ndarray, tables: Tables, support: np.ndarray) -> np.ndarray:
    """Computes the mean of rating minus prediction over the support clips: [E, 2].

    Args:
      windows: [U, S, 2], predictions for windows; the first N are the songs' first clips.
      tables: the ratings.
      support: [E, k], the ratings adapted on.
    """
    error = np.asarray(tables.curve)[support] - windows[np.asarray(tables.song_of)[support]]
    weight = np.asarray(tables.valid)[support][..., None]
    return (weight * error).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)


def training_mean(corpus: Corpus) -> np.ndarray:
    """Computes the mean of all ratings of the training split: [2]."""
    valid = np.asarray(corpus.tables.valid)
    return np.asarray(corpus.tables.curve)[valid].mean(0)


def _ideal(truth: Truth, eval_set: EvalSet, episodes: Episodes) -> dict[str, IdealCurves]:
    predicted = (
        ideal_population(truth, eval_set),
        ideal_adapted(truth, eval_set, episodes.control),
        ideal_adapted(truth, eval_set, episodes.support),
    )
    return dict(zip(IDEAL_METHODS, predicted, strict=True))


def _oracle(eval_set: EvalSet) -> dict[str, np.ndarray]:
    """Returns the noise-free curves as a method, if the corpus has them."""
    if eval_set.corpus.noise_free is None:
        return {}
    sequences = eval_set.sequences
    return {"oracle": eval_set.corpus.noise_free[sequences.rating, sequences.first :]}
