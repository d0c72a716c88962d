"""Curves widened around their mean by one factor for everybody.

A curve that minimizes an error moves less than any one rating, and CCC penalizes that. Widening is
no personalization, but raises the CCC of a population model, so a method that widens can look
personal when it is not. `population_widened` is the rival that has this part of the gain.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.evaluation.metrics import annotator_means, average, sequence_metrics
from dsaml_jax.evaluation.predictor import predict_windows
from dsaml_jax.evaluation.protocols import validation_set
from dsaml_jax.evaluation.sequences import Sequences
from dsaml_jax.model.weights import Weights

FACTORS = 10 ** np.linspace(-1, 1, 121)
"""Factors tried, 1 among them. Any factor in between is within 2 % of one of them, which near the
maximum changes CCC by at most 0.02 % of its value."""


@dataclasses.dataclass(frozen=True)
class Widening:
    """Factors fitted on validation.

    Attributes:
      factors: of (arousal, valence).
      validation_ccc: {"population": before, "population_widened": after}; None if undefined.
    """

    factors: tuple[float, ...]
    validation_ccc: dict[str, float | None]

    @property
    def strongest(self) -> str:
        """The name of the method with the higher CCC on validation; `population` if they tie."""
        return max(self.validation_ccc, key=lambda name: self.validation_ccc[name] or 0.0)

    def apply(self, curves: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Widens curves [M, L, 2] around their means over the valid segments."""
        return widened(curves, valid, np.array(self.factors))


def widened(curves: np.ndarray, valid: np.ndarray, factors: np.ndarray | float) -> np.ndarray:
    """Computes mean + factor (curve - mean), with means over the valid segments.

    Args:
      curves: [M, L, 2].
      valid: [M, L] bool.
      factors: [2], or one for both dimensions.
    """
    counted = valid[..., None]
    total = np.where(counted, curves, 0).sum(1, keepdims=True)
    mean = total / np.maximum(counted.sum(1, keepdims=True), 1)
    return mean + factors * (curves - mean)


def fit_widening(curves: np.ndarray, sequences: Sequences) -> Widening:
    """Chooses the factor of each dimension with the highest mean CCC over units.

    Args:
      curves: [M, L, 2], the predictions of a validation set's sequences.
      sequences: that set's.
    """

    def means_at(factors: np.ndarray | float) -> dict[str, float | None]:
        predicted = widened(curves, sequences.valid, factors)
        scores = sequence_metrics(predicted, sequences.curve, sequences.valid, "population")
        return average(annotator_means(scores, sequences.unit))

    tried = [means_at(factor) for factor in FACTORS]
    by_dimension = np.array([[t[f"ccc_{name}"] or 0.0 for t in tried] for name in DIMENSIONS])
    highest = by_dimension == by_dimension.max(1, keepdims=True)
    # Among equals, which all are for flat curves, the factor nearest to 1.
    place = np.where(highest, np.abs(np.log(FACTORS)), np.inf).argmin(1)
    factors = FACTORS[place]
    before, after = means_at(1.0)["ccc"], means_at(factors)["ccc"]
    return Widening(tuple(factors.tolist()), {"population": before, "population_widened": after})


def validation_widening(
    experiment: Experiment, corpus: Corpus, population: Weights
) -> Widening | None:
    """Fits the widening of the population model on validation; None with consensus labels.

    Args:
      experiment: the config.
      corpus: the validation split.
      population: weights of the population model.
    """
    if corpus.is_consensus:
        return None
    eval_set = validation_set(experiment, corpus)
    windows = predict_windows(experiment.model, population, eval_set)
    return fit_widening(eval_set.plan.splice(windows), eval_set.sequences)
