"""Ratings: bins in closed form, every format as its tool writes it, and every refusal."""

import json
import math

import numpy as np
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.personal import Rating, read_rating, write_rating
from dsaml_jax.personal.rating import joined
from dsaml_jax.personal.sound import Span
from dsaml_jax.personal.support import RatedSpan, level_notes

N = np.nan


def rating(times, arousal, valence=None, **options):
    arousal = np.asarray(arousal, float)
    valence = np.full(len(times), N) if valence is None else np.asarray(valence, float)
    return Rating(np.asarray(times, float), arousal, valence, **options)


def binned(*arguments, **options):
    return rating(*arguments, **options).bins().curve[:, 0]


def test_samples_at_2_hz_stay_as_they_are():
    curve = np.linspace(-1, 1, 9)
    found = rating(3 + np.arange(9) / 2, curve, -curve).bins()
    np.testing.assert_array_equal(found.time_s, np.arange(15) / 2)
    assert np.isnan(found.curve[:6]).all()
    np.testing.assert_allclose(found.curve[6:], np.stack([curve, -curve], axis=1), atol=1e-6)


def test_fast_samples_are_averaged():
    times = np.arange(0, 5, 0.05)
    line = times / 5
    np.testing.assert_allclose(binned(times, line), line.reshape(10, 10).mean(1), atol=1e-6)


def test_uneven_samples_are_weighted_by_how_long_they_hold():
    """0.2 for 0.1 s, then 0.7 for 0.4 s: (0.02 + 0.28) / 0.5 = 0.6; then 0.7 to the end."""
    found = binned([0, 0.1, 0.5, 0.9], [0.2, 0.7, 0.7, 0.7])
    np.testing.assert_allclose(found, [0.6, 0.7, 0.7], atol=1e-6)


def test_gaps_are_not_bridged():
    found = binned([0, 0.5, 1.0, 5.0, 5.5], [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(found[:4], [0.1, 0.2, 0.3, 0.3], atol=1e-6)  # held for 1 s
    assert np.isnan(found[4:10]).all()
    np.testing.assert_allclose(found[10:], [0.4, 0.5], atol=1e-6)


def test_values_of_tools_that_write_changes_only_hold_until_the_next():
    found = binned([0, 5.0, 6.0], [0.1, 0.4, 0.2], hold_s=math.inf)
    np.testing.assert_allclose(found[:12], [0.1] * 10 + [0.4] * 2, atol=1e-6)


def test_a_bin_covered_by_less_than_half_is_not_rated():
    assert np.isnan(binned([0.3, 0.5, 1.0], [0.5, 0.5, 0.6]))[0]
    assert not np.isnan(binned([0.2, 0.5, 1.0], [0.5, 0.5, 0.6]))[0]


def test_a_missing_value_ends_the_one_before():
    found = rating([0, 0.5, 1, 1.5], [0.1, N, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]).bins().curve
    np.testing.assert_allclose(found[:, 0], [0.1, N, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], [0.5, 0.6, 0.7, 0.8], atol=1e-6)


def test_two_files_of_one_dimension_are_one_rating():
    times = np.arange(0, 4, 0.25)
    a, v = np.sin(times), np.cos(times)
    nothing = np.full(len(times), N)
    later = Rating(times + 0.1, nothing, v)
    both = joined([rating(times, a), later])
    np.testing.assert_allclose(both.bins().curve[:8, 0], binned(times, a), atol=1e-6)
    np.testing.assert_allclose(both.bins().curve[:8, 1], later.bins().curve[:8, 1], atol=1e-6)
    with pytest.raises(UserError, match="same dimension twice"):
        joined([rating(times, a), rating(times, v)])


def write(tmp_path, text, name="rating.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("scale", [(-1, 1), (0, 1), (1, 9), (-100, 100)])
def test_our_own_file_is_read_without_flags(tmp_path, scale):
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.08, 50))
    own = rating(times, np.sin(times), np.cos(times), media="a song.wav")
    write_rating(tmp_path / "a.csv", own, scale)
    found = read_rating(tmp_path / "a.csv")
    np.testing.assert_allclose(found.time_s, times, atol=1e-6)
    np.testing.assert_allclose(found.arousal, own.arousal, atol=2e-7)
    np.testing.assert_allclose(found.valence, own.valence, atol=2e-7)
    assert (found.media, found.notes, found.hold_s) == ("a song.wav", (), 1.0)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("time_s,arousal,valence\n0,1,0\n0.5,0,-0.5\n", {"scale": (-1, 1)}),
        ("valence,time_ms,arousal\n0,0,1\n-0.5,500,0\n", {"scale": "-1..1"}),
        ("Time (ms)\tValence (1-9)\tArousal [1 to 9]\n0\t5\t9\n500\t3\t5\n", {}),
        ("time;arousal;valence\n0;1,0;0,5\n0,5;0,5;0,25\n", {"scale": (0, 1), "time_unit": "s"}),
        ("# scale: -100 to 100\nseconds,AROUSAL,valence\n0,100,0\n\n.5,0,-50\n", {}),
        ("﻿t_s,arousal,valence\r\n0,1,0\r\n0.5,0,-0.5\r\n", {"scale": (-1, 1)}),
    ],
)
def test_columns_units_and_scales(tmp_path, text, options):
    found = read_rating(write(tmp_path, text), **options)
    np.testing.assert_allclose(found.time_s, [0, 0.5])
    np.testing.assert_allclose(found.arousal, [1, 0], atol=1e-7)
    np.testing.assert_allclose(found.valence, [0, -0.5], atol=1e-7)


CARMA = (
    "Time of Rating,01-Dec-2024 10:00:00\nMultimedia File,song.mp3\nLower Label,very negative\n"
    "Upper Label,very positive\nMinimum Value,-100\nMaximum Value,100\nNumber of Steps,9\n"
    "Second,Rating\n%%%%%%,%%%%%%\n0.5,50\n1,NaN\n1.5,-100\n2,100"
)
DARMA = (
    "Time of Rating,01-Dec-2024 10:00:00,,\nMultimedia File,song.mp3,,\nMagnitude,10,,\n"
    "Second,{x},{y},Button\n%%%%%%,%%%%%%,%%%%%%,%%%%%%\n0.5,5,-10,0\n1,2.5,0,0\n1.5,NaN,10,1"
)


def test_carma_states_its_scale_and_the_ends_of_its_intervals(tmp_path):
    found = read_rating(write(tmp_path, CARMA), dimension="valence")
    np.testing.assert_allclose(found.time_s, [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(found.bins().curve[:, 1], [0.5, N, -1, 1], atol=1e-6)
    assert np.isnan(found.arousal).all() and found.media == "song.mp3"
    assert "1 of 4 samples have no valence" in found.notes


def test_early_files_of_carma_repeat_their_metadata(tmp_path):
    head = "Filename,Lower Label,Upper Label,Minimum Value,Midpoint Value,Maximum Value,"
    line = r"C:\films\song.avi,very negative,very positive,-100,0,100,9"
    text = f"{head}Number of Steps,Second,Rating\n{line},1,50\n{line},2,-50\n"
    found = read_rating(write(tmp_path, text), dimension="arousal")
    np.testing.assert_allclose(found.bins().curve[:, 0], [0.5, 0.5, -0.5, -0.5], atol=1e-6)
    assert found.media == "song.avi"


@pytest.mark.parametrize("axes", [{"x": "X", "y": "Y"}, {"x": "Valence", "y": "Arousal"}])
def test_darma_rates_both_dimensions(tmp_path, axes):
    found = read_rating(write(tmp_path, DARMA.format(**axes)))
    expected = [[-1, 0.5], [0, 0.25], [1, N]]
    np.testing.assert_allclose(found.bins().curve, expected, atol=1e-6)


def test_darma_with_other_axes_is_refused(tmp_path):
    with pytest.raises(UserError, match="axes are 'Communion' and 'Agency'; expected Valence"):
        read_rating(write(tmp_path, DARMA.format(x="Communion", y="Agency")))


def test_pagan_writes_milliseconds_and_changes(tmp_path):
    text = "Timestamp,VideoTime,Value\r\n1650000000000,0,0\r\n1650000002000,2000,50\r\n"
    text += "1650000003000,3000,-100\r\n1650000004000,4000,20\r\n"
    found = read_rating(write(tmp_path, text), scale=(-100, 100), dimension="arousal")
    expected = [0] * 4 + [0.5] * 2 + [-1] * 2 + [0.2] * 2
    np.testing.assert_allclose(found.bins().curve[:, 0], expected, atol=1e-6)


def test_a_project_of_pagan(tmp_path):
    head = "OriginalName,DatabaseName,Participant,SessionID,Timestamp,VideoTime,Value\n"
    line = "Well, a song - 12.5,P_E,{},S,16500000000{}\n"
    log = [(0, 0, 0), (1, 1000, 50), (2, 3000, -50), (3, 3000, 0)]  # the last marks the end
    text = head + "".join(line.format("one", f"{a},{b},{c}") for a, b, c in log)
    options = {"scale": (-100, 100), "dimension": "valence"}
    found = read_rating(write(tmp_path, text), **options)
    assert found.media == "Well, a song" and len(found.time_s) == 3
    assert any("marks the end" in note for note in found.notes)
    text += line.format("two", "4,0,0")
    with pytest.raises(UserError, match="2 annotations of PAGAN"):
        read_rating(write(tmp_path, text), **options)


TRIAL = {
    "trial_type": "audio-keyboard-response",
    "stimulus": "sounds/song.mp3",
    "mouse_tracking_data": [
        {"x": 100, "y": 50, "t": 0, "event": "mousemove"},
        {"x": 150, "y": 100, "t": 1000, "event": "mousemove"},
        {"x": 150, "y": 150, "t": 1000, "event": "mousemove"},
        {"x": 500, "y": 50, "t": 2500, "event": "mousemove"},
    ],
    "mouse_tracking_targets": {"#plane": {"x": 100, "y": 50, "width": 200, "height": 200}},
}


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_jspsych_tracks_the_mouse_over_the_plane(tmp_path, kind):
    trials = [{"trial_type": "html-button-response"}, TRIAL]
    if kind == "json":
        text = json.dumps(trials)
    else:
        cells = [json.dumps(TRIAL[name]) for name in TRIAL if name.startswith("mouse")]
        quoted = ['"' + cell.replace('"', '""') + '"' for cell in ["song.mp3", *cells]]
        text = '"stimulus","mouse_tracking_data","mouse_tracking_targets"\r\n"","",""\r\n'
        text += ",".join(quoted) + "\r\n"
    found = read_rating(write(tmp_path, text))
    np.testing.assert_allclose(found.time_s, [0, 1, 2.5])
    np.testing.assert_allclose(found.valence, [-1, -0.5, 1], atol=1e-6)
    np.testing.assert_allclose(found.arousal, [1, 0, 1], atol=1e-6)
    assert found.media == "song.mp3" and found.hold_s == math.inf
    assert "1 positions outside the plane" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mouse_tracking_targets": {}}, r"names 0 elements; expected one"),
        ({"mouse_tracking_data": []}, r"has 0 trials with mouse_tracking_data"),
        ({"mouse_tracking_data": [{"x": 1}]}, r"lacks x, y, t"),
        ({"mouse_tracking_data": [3]}, r"lacks x, y, t"),
    ],
)
def test_jspsych_without_a_plane_or_positions_is_refused(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        read_rating(write(tmp_path, json.dumps([TRIAL | change])))


GOOD = "time_s,arousal,valence\n0,0.1,0\n0.5,0.2,-0.5\n1,0.3,0.4\n"


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (GOOD, {}, r"does not say on which scale it rates \(arousal goes from 0.1 to 0.3\)"),
        (GOOD, {"scale": "9..1"}, r"--scale is '9..1'; expected LOW..HIGH"),
        (GOOD, {"scale": (1, 9)}, r"line 2: arousal is 0.1, outside the scale 1 to 9 \(3 of 3"),
        (GOOD.replace("0.3", "3"), {}, r"line 4: arousal is 3, outside the scale -1 to 1 \(1 of"),
        ("# scale: 1 to 9\n" + GOOD, {}, r"states the scale 1 to 9, but --scale is -1..1"),
        (GOOD, {"time_unit": "ms"}, r"states times in s, but --time_unit is ms"),
        (GOOD, {"time_unit": "min"}, r"--time_unit is 'min'; expected one of s, ms"),
        (GOOD.replace("time_s", "time"), {}, r"does not say in which unit"),
        (GOOD.replace("time_s", "when"), {}, r"has the columns when, arousal, valence; expected"),
        (GOOD.replace("arousal", "x").replace("valence", "y"), {}, "columns time_s, x, y"),
        (GOOD.replace("valence", "arousal"), {}, "columns time_s, arousal, arousal"),
        (GOOD.replace("\n1,", "\n0.25,"), {}, r"line 4: the time 0.25 s is before .* sort"),
        (GOOD.replace("\n1,", "\n0.5,"), {}, r"line 4: the time 0.5 s is the same as .* keep one"),
        (GOOD.replace("\n0,", "\n-3,"), {}, r"line 2: the first time is before the song"),
        (GOOD.replace("0.2", "high"), {}, r"line 3: arousal is 'high'; expected a number"),
        (GOOD.replace("0.2", "inf"), {}, r"line 3: arousal is 'inf'; expected a number"),
        (GOOD.replace("\n0.5,", "\n,"), {}, r"line 3 has no time"),
        ("time_s,arousal\n0,\n1,nan\n", {}, r"rates nothing: all 2 values are empty or NaN"),
        ("time_s,arousal\n0,0.2\n1,0.2\n", {}, r"constant \(arousal 0.2 throughout.*nothing can"),
        ("time_s,arousal,valence\n", {}, r"holds no ratings"),
        ("time_s,value\n0,0.1\n1,0.2\n", {}, r"does not say what it rates; state it with --dim"),
        ("time_s,arousal\n0,0.1\n1,0.2\n", {"dimension": "valence"}, r"rates arousal, but --dim"),
        ("# a comment\n", {}, r"holds no rows"),
        (" \n", {}, r"is empty"),
        ("PK\3\4...", {}, r"is a spreadsheet; export it as CSV"),
        (CARMA.partition("%%")[0], {}, r"begins as a file of CARMA or DARMA, but holds no"),
        ('[{"mouse_tracking_data": [}]', {}, r"is no data of jsPsych"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, text, options, sentence):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_rating(path, **({"scale": (-1, 1)} if sentence[:4] != "does" else {}) | options)
    assert "\n" not in str(caught.value)
    if "--scale is '9" not in sentence and "--time_unit is 'min'" not in sentence:
        assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_rating(path)


def test_what_is_left_out_is_noted(tmp_path):
    text = "time_s,arousal,valence,mood\n0,0.1,0,x\n0.5,,0.5,y\n1,0.3,,z\n1.5,,,\n"
    found = read_rating(write(tmp_path, text), (-1, 1))
    assert found.notes == (
        "columns not used: mood",
        "2 of 4 samples have no arousal",
        "2 of 4 samples have no valence",
    )


@pytest.mark.parametrize(
    ("times", "arousal", "sentence"),
    [
        ([0, 1, 1], [0, 0, 0], "increase"),
        ([-1, 1], [0, 0], "from 0 s on"),
        ([0, 1], [0, 2], "goes from 0 to 2"),
        ([0, 1], [N, N], "rates nothing"),
        ([], [], "rates nothing"),
        ([0, 1, 2], [0, 0], "one value each"),
    ],
)
def test_a_rating_that_makes_no_sense_cannot_be_made(times, arousal, sentence):
    with pytest.raises(UserError, match=sentence):
        Rating(np.array(times), np.array(arousal), np.full(len(arousal), N))


def test_a_level_far_from_the_population_is_marked():
    curve = np.array([[0.9, 0.1], [0.7, N], [N, 0.3]])
    rated = RatedSpan(Span("a.wav", 0.0, 3, 1.5), curve, ())
    near, far = np.full((3, 2), -0.19), np.full((3, 2), -0.21)
    assert level_notes(rated, near) == []
    (note,) = level_notes(rated, far)  # 0.8 - (-0.21) > 1, and 0.2 - (-0.21) < 1
    assert note.startswith("CHECK: arousal is +0.80 on average, where the population's curve is")
