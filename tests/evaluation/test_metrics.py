"""RMSE, PCC and CCC: closed forms, masks, and what a flat curve does."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.errors import UserError
from dsaml_jax.evaluation import metrics

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def no_numerical_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def of_pair(prediction, target):
    """Computes the metrics of one sequence [L] used for both dimensions, as plain floats."""
    stack = [np.stack([curve, curve], axis=-1)[None] for curve in (prediction, target)]
    values = metrics.sequence_metrics(*stack, np.ones((1, len(prediction)), bool))
    return {name: array[0, 0] for name, array in values.items()}


def smooth(seed, length=40):
    return np.cumsum(np.random.default_rng(seed).normal(0, 0.05, length))


@given(seeds, st.floats(-1, 1), st.floats(0.05, 3), st.sampled_from([-1, 1]))
def test_affine_prediction_has_the_closed_form(seed, offset, size, sign):
    x, gain = smooth(seed), sign * size
    found = of_pair(offset + gain * x, x)
    difference = offset + (gain - 1) * x.mean()
    assert found["pcc"] == pytest.approx(sign, abs=1e-9)
    expected = 2 * gain * x.var() / ((1 + gain**2) * x.var() + difference**2)
    assert found["ccc"] == pytest.approx(expected, abs=1e-12)
    expected = np.sqrt(difference**2 + (gain - 1) ** 2 * x.var())
    assert found["rmse"] == pytest.approx(expected, abs=1e-12)


@given(seeds, seeds)
def test_metrics_are_symmetric_and_ccc_is_within_pcc(first, second):
    there, back = (
        of_pair(smooth(first), smooth(second)),
        of_pair(smooth(second), smooth(first)),
    )
    assert there == pytest.approx(back, abs=1e-12)
    assert abs(there["ccc"]) <= abs(there["pcc"]) + 1e-12
    assert abs(there["pcc"]) <= 1


def test_pcc_is_numpys_and_a_perfect_prediction_is_perfect():
    p, t = smooth(1), smooth(2)
    assert of_pair(p, t)["pcc"] == pytest.approx(np.corrcoef(p, t)[0, 1], abs=1e-12)
    assert of_pair(t, t) == pytest.approx({"ccc": 1, "pcc": 1, "rmse": 0}, abs=1e-12)


@given(seeds, st.integers(1, 20))
def test_masked_equals_cut(seed, length):
    rng = np.random.default_rng(seed)
    prediction, target = rng.normal(size=(2, 3, 20, 2))
    valid = np.arange(20) < length
    shuffled = rng.permuted(np.tile(valid, (3, 1)), axis=1)
    for curves in (prediction, target):
        curves[~shuffled] = np.nan
    masked = metrics.sequence_metrics(prediction, target, shuffled)
    for n in range(3):
        cut = metrics.sequence_metrics(
            prediction[n, shuffled[n]][None],
            target[n, shuffled[n]][None],
            np.ones((1, length), bool),
        )
        for name, values in cut.items():
            np.testing.assert_allclose(masked[name][n], values[0], atol=1e-12)


def test_both_dimensions_are_measured_apart():
    prediction, target = np.random.default_rng(0).normal(size=(2, 1, 30, 2))
    together = metrics.sequence_metrics(prediction, target, np.ones((1, 30), bool))
    for i in range(2):
        alone = of_pair(prediction[0, :, i], target[0, :, i])
        assert {name: values[0, i] for name, values in together.items()} == pytest.approx(alone)


def test_flat_prediction_of_a_varying_target_counts_as_no_association():
    found = of_pair(np.full(40, np.float32(0.3)), smooth(0))
    assert found["pcc"] == 0
    assert found["ccc"] == pytest.approx(0, abs=1e-12)
    noise = np.random.default_rng(0).normal(0, 1e-7, 40)
    assert of_pair(0.3 + noise, smooth(0))["pcc"] == 0


@pytest.mark.parametrize("prediction", [np.full(40, 0.1), np.full(40, 0.7), smooth(3)])
def test_flat_target_is_undefined_whoever_predicts(prediction):
    found = of_pair(prediction, np.full(40, 0.1))
    assert np.isnan(found["pcc"]) and np.isnan(found["ccc"])
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((prediction - 0.1) ** 2)))


def test_nothing_valid_is_undefined_and_one_frame_has_an_error_only():
    target = np.zeros((2, 5, 2))
    valid = np.zeros((2, 5), bool)
    valid[1, 3] = True
    found = metrics.sequence_metrics(target + 0.5, target, valid)
    assert all(np.isnan(values[0]).all() for values in found.values())
    assert np.isnan(found["ccc"][1]).all() and np.isnan(found["pcc"][1]).all()
    assert found["rmse"][1] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("role", "name"), [("prediction", "adapted predictions"), ("target", "ratings")]
)
def test_what_is_not_finite_is_refused(role, name):
    curves = {"prediction": np.zeros((3, 5, 2)), "target": np.zeros((3, 5, 2))}
    valid = np.ones((3, 5), bool)
    curves[role][1, 2, 0] = np.inf
    with pytest.raises(
        UserError, match=rf"The {name} of 1 of 3 sequences \(the first is number 1,"
    ):
        metrics.sequence_metrics(**curves, valid=valid, name="adapted")
    valid[1, 2] = False
    assert not np.isnan(metrics.sequence_metrics(**curves, valid=valid)["rmse"]).any()
    with pytest.raises(ValueError, match="expected"):
        metrics.sequence_metrics(**curves, valid=valid[:, :4])


def test_averages_go_over_sequences_then_annotators_and_skip_undefined_ones():
    per_sequence = {
        "ccc": np.array([[0.2, 0.4], [0.4, np.nan], [0.8, 0.1], [0.5, np.nan]]),
        "pcc": np.full((4, 2), np.nan),
        "rmse": np.array([[0.1, 0.1], [0.3, 0.3], [0.4, 0.4], [1.0, 1.0]]),
    }
    means = metrics.annotator_means(per_sequence, np.array(["b", "b", "a", "c"]))
    np.testing.assert_allclose(means["ccc_arousal"], [0.8, 0.3, 0.5])
    np.testing.assert_allclose(means["ccc_valence"], [0.1, 0.4, np.nan])
    np.testing.assert_allclose(means["ccc"], [0.45, 0.35, np.nan])
    found = metrics.average(means)
    assert tuple(found) == metrics.METRIC_NAMES
    assert found["ccc"] == pytest.approx(0.4)
    assert found["rmse"] == pytest.approx((0.2 + 0.4 + 1.0) / 3)
    assert found["pcc"] is None
    undefined = metrics.undefined_counts(per_sequence)
    assert (undefined["ccc"], undefined["ccc_valence"], undefined["ccc_arousal"]) == (2, 2, 0)
    assert (undefined["pcc"], undefined["pcc_arousal"], undefined["rmse"]) == (8, 4, 0)
    skipped = metrics.left_out(means)
    assert (skipped["ccc"], skipped["ccc_arousal"], skipped["pcc"], skipped["rmse"]) == (1, 0, 3, 0)


@given(seeds)
def test_order_of_sequences_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=(12, 2)) for name in metrics.METRICS}
    people, order = rng.integers(0, 4, 12), rng.permutation(12)
    straight = metrics.annotator_means(values, people)
    shuffled = metrics.annotator_means({k: v[order] for k, v in values.items()}, people[order])
    for name, array in straight.items():
        np.testing.assert_allclose(shuffled[name], array, atol=1e-12)
