"""Curves widened by one factor for everybody."""

import numpy as np
import pytest

from dsaml_jax.evaluation.metrics import annotator_means, average, sequence_metrics
from dsaml_jax.evaluation.sequences import Sequences
from dsaml_jax.evaluation.widening import FACTORS, fit_widening, widened


def sequences_of(curves, valid=None):
    count, length = curves.shape[:2]
    index = np.arange(count)
    valid = np.ones((count, length), bool) if valid is None else valid
    return Sequences(0, index, index, index, index // 2, curves, valid)


def random_curves(count=12, length=30):
    return np.cumsum(np.random.default_rng(0).normal(0, 0.05, (count, length, 2)), axis=1)


def test_widening_keeps_the_mean_and_the_shape_of_the_valid_part():
    curves = random_curves()
    valid = np.arange(30) < 20
    wide = widened(curves, np.broadcast_to(valid, (12, 30)), np.array([2.0, 0.5]))
    np.testing.assert_allclose(wide[:, :20].mean(1), curves[:, :20].mean(1))
    np.testing.assert_allclose(wide[:, :20].std(1), curves[:, :20].std(1) * [2.0, 0.5])
    np.testing.assert_allclose(widened(curves, np.broadcast_to(valid, (12, 30)), 1.0), curves)


def test_the_factor_by_which_curves_were_narrowed_is_found():
    target = random_curves()
    narrow = target.copy()
    narrow -= (1 - 1 / FACTORS[[80, 40]]) * (target - target.mean(1, keepdims=True))
    fitted = fit_widening(narrow, sequences_of(target))
    np.testing.assert_allclose(fitted.factors, FACTORS[[80, 40]])
    assert fitted.validation_ccc["population_widened"] == pytest.approx(1)
    assert fitted.validation_ccc["population"] < 0.95
    assert fitted.strongest == "population_widened"
    np.testing.assert_allclose(fitted.apply(narrow, np.ones((12, 30), bool)), target, atol=1e-9)


def test_the_chosen_factor_has_the_best_ccc_of_all():
    target, curves = random_curves(), 0.5 * random_curves()[::-1] + 0.3 * random_curves()
    valid = np.random.default_rng(1).random((12, 30)) < 0.8
    sequences = sequences_of(target, valid)
    fitted = fit_widening(curves, sequences)

    def ccc(factors):
        scores = sequence_metrics(widened(curves, valid, factors), target, valid)
        return average(annotator_means(scores, sequences.unit))["ccc"]

    assert fitted.validation_ccc["population_widened"] == pytest.approx(ccc(fitted.factors))
    for factor in (0.9, 0.97, 1.03, 1.1):
        assert ccc(np.array(fitted.factors) * factor) < ccc(fitted.factors) + 1e-4


def test_flat_curves_and_flat_ratings_are_left_as_they_are():
    target = random_curves()
    for curves, rating in ((np.zeros_like(target), target), (target, np.zeros_like(target))):
        fitted = fit_widening(curves, sequences_of(rating))
        assert fitted.factors == (1.0, 1.0) and fitted.strongest == "population"
