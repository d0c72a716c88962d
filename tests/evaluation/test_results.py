"""Scores of all methods: counts, differences from the reference, and the tables."""

import dataclasses
import json

import numpy as np
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.evaluation import metrics
from dsaml_jax.evaluation.bootstrap import Interval
from dsaml_jax.evaluation.results import score_methods
from dsaml_jax.evaluation.songs_curve import SongsCurve
from dsaml_jax.reports.conclusion import conclusion, summary_text
from dsaml_jax.reports.tables import intervals_table, results_table


def experiment(annotators=12, songs=3, length=40):
    """Returns predictions of different errors around random ratings; two ratings are flat."""
    rng = np.random.default_rng(0)
    count = annotators * songs
    target = np.cumsum(rng.normal(0, 0.05, (count, length, 2)), axis=1)
    target[0] = 0.2
    target[1, :, 1] = 0.3
    valid = np.arange(length) < rng.integers(length // 2, length + 1, count)[:, None]
    errors = {"population": 0.3, "adapted": 0.1, "oracle": 0.05, "extra": 0.2}
    predictions = {"constant": np.zeros_like(target)} | {
        row: target + rng.normal(0, size, target.shape) for row, size in errors.items()
    }
    who = np.repeat([f"listener {i}" for i in range(annotators)], songs)
    return {"predictions": predictions, "target": target, "valid": valid, "annotator_index": who}


@pytest.fixture(scope="module")
def results():
    return score_methods(**experiment(), seed=0, resamples=1000)


def test_results_round_trip_through_json_without_nan(results):
    text = json.dumps(results.to_json(), allow_nan=False)
    content = json.loads(text)
    assert content == results.to_json()
    assert set(content["differences"]["population"]["ccc_valence"]) == {"mean", "low", "high"}
    assert set(content["rows"]["constant"]) == set(metrics.METRIC_NAMES)
    assert set(content["differences"]) == set(content["rows"]) - {"adapted"}


def test_smaller_errors_score_better_and_differences_agree(results):
    rows = results.rows
    assert rows["constant"]["ccc"] == pytest.approx(0, abs=1e-12) and rows["constant"]["pcc"] == 0
    assert rows["population"]["ccc"] < rows["adapted"]["ccc"] < rows["oracle"]["ccc"]
    difference = results.differences["population"]
    assert 0 < difference["ccc"].low < difference["ccc"].mean < difference["ccc"].high
    assert difference["rmse"].high < 0
    assert results.differences["oracle"]["ccc"].high < 0


def test_differences_of_means_are_means_of_differences(results):
    for row, values in results.differences.items():
        for name, interval in values.items():
            expected = results.rows["adapted"][name] - results.rows[row][name]
            assert interval.mean == pytest.approx(expected, abs=1e-12)
            assert results.intervals[row][name].mean == pytest.approx(results.rows[row][name])


def test_flat_ratings_are_counted_equally_for_every_row(results):
    assert results.counts == {"annotators": 12, "sequences": 36}
    for row in results.rows:
        counts = results.undefined[row]
        assert (counts["ccc_arousal"], counts["ccc_valence"], counts["ccc"]) == (1, 2, 3)
        assert counts["rmse"] == 0
        assert set(results.left_out[row].values()) == {0}


def test_annotators_with_only_flat_ratings_are_left_out_and_counted():
    given = experiment(songs=1)
    scored = score_methods(**given, seed=0, resamples=100)
    assert scored.left_out["adapted"]["ccc_arousal"] == 1
    assert scored.left_out["adapted"]["ccc"] == 2
    rest = {key: given[key][2:] for key in ("target", "valid", "annotator_index")}
    rest["predictions"] = {row: curves[2:] for row, curves in given["predictions"].items()}
    without = score_methods(**rest, seed=0, resamples=100)
    assert scored.rows["adapted"]["ccc"] == pytest.approx(without.rows["adapted"]["ccc"])
    assert scored.differences["population"]["ccc"] == without.differences["population"]["ccc"]
    assert "all rows: CCC 3 curves, 2 annotators; PCC 3 curves, 2 annotators." in results_table(
        scored
    )


def test_the_table_has_ordered_rows_and_says_whether_lower_is_better(results):
    lines = results_table(results).splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert names[0] == "row"
    assert names[2:] == ["constant", "population", "adapted", "oracle", "extra"]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    population = next(line for line in lines if line.startswith("| population"))
    interval = results.differences["population"]["ccc"]
    assert f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] *" in population
    assert "RMSE: lower is better" in lines[-3]
    reversed_order = results_table(results, order=["oracle", "adapted"])
    assert reversed_order.index("\n| oracle") < reversed_order.index("\n| adapted ")


def test_units_can_be_songs_and_any_row_the_reference():
    given = experiment()
    given["predictions"].pop("adapted")
    scored = score_methods(**given, seed=0, resamples=100, unit="songs", reference="population")
    assert scored.counts == {"songs": 12, "sequences": 36}
    assert set(scored.differences) == {"constant", "oracle", "extra"}
    expected = scored.rows["population"]["ccc"] - scored.rows["oracle"]["ccc"]
    assert scored.differences["oracle"]["ccc"].mean == pytest.approx(expected)
    text = results_table(scored)
    assert "Means over 12 songs" in text and "population − row, CCC" in text
    assert "annotators" not in text and "adapted" not in text


def test_intervals_table_has_the_intervals_of_the_means(results):
    lines = intervals_table(results, ["oracle"]).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:4]] == [
        "row",
        "CCC, arousal",
        "CCC, valence",
    ]
    scored = results.intervals["oracle"]["ccc_arousal"]
    assert lines[2].startswith(
        f"| oracle     | {scored.mean:.3f} [{scored.low:.3f}, {scored.high:.3f}]"
    )
    assert len(lines) == 2 + len(results.rows) and len({len(line) for line in lines}) == 1


def test_one_annotator_has_means_but_no_interval():
    given = experiment(annotators=1, songs=4)
    scored = score_methods(**given, seed=0, resamples=100)
    interval = scored.differences["population"]["ccc"]
    assert interval.mean is not None and interval.low is None and interval.high is None
    assert "[-]" in results_table(scored)
    assert json.loads(json.dumps(scored.to_json()))["differences"]["constant"]["ccc"]["low"] is None


def test_undefined_metrics_are_dashes():
    given = experiment(annotators=2, songs=1)
    given["target"][:] = 0.1
    scored = score_methods(**given, seed=0, resamples=100)
    assert scored.rows["adapted"]["ccc"] is None
    assert "| adapted    |   - |   - | " in results_table(scored)


def test_without_the_reference_row_there_are_no_differences():
    given = experiment()
    del given["predictions"]["adapted"]
    scored = score_methods(**given, seed=0, resamples=100)
    assert scored.differences == {} and len(scored.rows) == 4
    assert "adapted" not in results_table(scored)


def test_a_diverged_row_is_rejected_by_name():
    given = experiment()
    given["predictions"]["adapted"][5, 0] = np.nan
    with pytest.raises(UserError, match=r"The adapted predictions of 1 of 36 sequences"):
        score_methods(**given, seed=0)


def test_the_captured_headroom_is_a_ratio_of_gains():
    given = experiment()
    rng = np.random.default_rng(1)
    noise = {"population_widened": 0.25, "ideal_population": 0.2, "ideal_adapted": 0.05}
    for row, size in noise.items():
        given["predictions"][row] = given["target"] + rng.normal(0, size, given["target"].shape)
    scored = score_methods(**given, seed=0, resamples=500, baseline="population_widened")
    rows, found = scored.rows, scored.headroom
    gained = rows["adapted"]["ccc"] - rows["population_widened"]["ccc"]
    available = rows["ideal_adapted"]["ccc"] - rows["ideal_population"]["ccc"]
    assert found.gained.mean == pytest.approx(gained)
    assert found.available.mean == pytest.approx(available)
    assert found.share.mean == pytest.approx(gained / available)
    assert found.share.low < found.share.mean < found.share.high
    assert json.loads(json.dumps(scored.to_json()))["headroom"]["baseline"] == "population_widened"
    assert "Ideal rows know the simulator" in results_table(scored)
    text = summary_text(scored)
    assert f"{found.share.mean:.1%} [{found.share.low:.1%}, {found.share.high:.1%}]" in text
    assert "over population_widened" in text and "with 5 songs" not in text
    more = SongsCurve(
        songs=(1, 5),
        adapted=(Interval(0.01, 0.0, 0.02), Interval(0.05, 0.04, 0.06)),
        ideal=(Interval(0.05, 0.04, 0.06), Interval(0.12, 0.11, 0.13)),
        share=(Interval(0.2, 0.1, 0.3), Interval(0.4, 0.3, 0.5)),
        baseline="population_widened",
        annotators=7,
        sequences=20,
    )
    text = conclusion(dataclasses.replace(scored, songs_curve=more))
    assert "+0.050 [+0.040, +0.060] of +0.120 [+0.110, +0.130] with 5 songs" in text
    assert "the 7 listeners who rated more than 5 songs" in text


def test_without_ideal_rows_there_is_no_headroom(results):
    assert results.headroom is None and conclusion(results) == ""
    assert summary_text(results) == results_table(results)


def test_rmse_may_be_that_of_another_curve():
    given = experiment()
    other = {"extra": given["target"] + 0.5}
    scored = score_methods(**given, seed=0, resamples=100, rmse_predictions=other)
    plain = score_methods(**given, seed=0, resamples=100)
    assert scored.rows["extra"]["rmse"] == pytest.approx(0.5)
    assert scored.differences["extra"]["rmse"].mean == pytest.approx(
        plain.rows["adapted"]["rmse"] - 0.5
    )
    assert scored.rows["extra"]["ccc"] == plain.rows["extra"]["ccc"]
    assert scored.rows["adapted"] == plain.rows["adapted"]
