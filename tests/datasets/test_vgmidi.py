"""VGMIDI's annotations, its raters, and rendering."""

import builtins
import copy
import json

import numpy as np
import pytest

from dsaml_jax.audio import midi
from dsaml_jax.datasets import resample
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.datasets.schema import EVERYONE
from dsaml_jax.datasets.vgmidi import parse, raters
from dsaml_jax.errors import UserError
from tests import data_folders

NO_AUDIO = ReadOptions(require_audio=False)


@pytest.mark.parametrize("folder", ["labeled", ".", "deep/er"])
def test_pieces_and_raters(tmp_path, folder):
    root = tmp_path
    (root / folder).mkdir(parents=True, exist_ok=True)
    songs, findings = parse.read(data_folders.vgmidi(root, folder=folder), NO_AUDIO)
    assert [song.song_id for song in songs] == ["1_piece0", "1_piece1"]
    assert [song.title for song in songs] == ["A tune", "Another"]
    assert (root / songs[0].audio).read_bytes()[:4] == b"MThd"
    assert songs[1].audio == ""
    one, two, three = (rating.annotator_id for rating in songs[0].ratings)
    assert three == EVERYONE and one != two
    assert [rating.annotator_id for rating in songs[1].ratings] == [one, two, EVERYONE]
    assert [song.duration_s for song in songs] == [6.0, 5.0]
    assert findings.dropped() == {
        "the piece does not exist": 1,
        "the rater cannot be identified": 3,
    }
    assert findings.counts["raters of 2 pieces"] == 2
    assert findings.counts["set 2 is absent"] == 1
    assert findings.missing_audio == ("1_piece1",)
    assert findings.unlabeled_audio == ("Unlabeled.mid",)


def test_bars_are_spread_over_the_duration(tmp_path):
    songs, _ = parse.read(data_folders.vgmidi(tmp_path))
    source = data_folders.vgmidi_set()["annotations"]["piece0_1"]
    bars = np.stack([source["arousal"], source["valence"]], 1)
    np.testing.assert_allclose(songs[0].ratings[0].curve, resample.from_bars(bars, 6.0), atol=1e-6)
    np.testing.assert_allclose(songs[0].ratings[0].curve[::3], bars, atol=1e-6)
    mean = (songs[0].ratings[0].curve + songs[0].ratings[1].curve) / 2
    np.testing.assert_allclose(songs[0].ratings[2].curve, mean, atol=1e-6)


def test_no_answer_and_no_profile_reaches_the_output(tmp_path):
    songs, findings = parse.read(data_folders.vgmidi(tmp_path), NO_AUDIO)
    told = repr(songs) + findings.text() + json.dumps([vars(p) for p in findings.drops])
    for text in ("my dog would howl", "rather sad", "21-25", "Male", "61-65"):
        assert text not in told


def test_ids_are_stable_and_follow_profile_and_answers():
    content = data_folders.vgmidi_set()["annotations"]
    ids = raters.identify(content)
    assert ids["piece0_1"] == ids["piece1_1"] == ids["piece81_1"] != ids["piece0_2"]
    # Fixed, because ids are kept in prepared data and in results.
    assert ids["piece0_1"] == "87c12ff4a0ebc261"
    assert raters.identify(dict(reversed(content.items()))) == ids
    for field in (*raters.PROFILE, *raters.ANSWERS):
        other = copy.deepcopy(content)
        other["piece0_1"][field] = "something else"
        assert raters.identify(other)["piece0_1"] != ids["piece0_1"]
    other = copy.deepcopy(content)
    other["piece0_1"]["isKnown"] = True
    assert raters.identify(other) == ids


def test_two_silent_annotations_of_one_profile_are_one_rater():
    content = data_folders.vgmidi_set()["annotations"]
    assert "piece0_3" not in raters.identify(content)
    del content["piece1_4"]
    ids = raters.identify(content)
    assert ids["piece0_3"] == ids["piece1_3"]


def spoil(name, field, value):
    content = data_folders.vgmidi_set()
    part = "annotations" if "_" in name else "pieces"
    content[part][name][field] = value
    return content


@pytest.mark.parametrize(
    ("content", "kind", "place"),
    [
        (spoil("piece0_1", "arousal", [0, 0.1, 2, 0]), "outside the scale", "piece0_1, arousal"),
        (spoil("piece0_1", "valence", [0, "low", 0, 0]), "not a number", "piece0_1, valence"),
        (spoil("piece0_1", "valence", [0, True, 0, 0]), "not a number", "piece0_1, valence"),
        (spoil("piece0_1", "arousal", None), "not a list of numbers", "piece0_1, arousal"),
        (spoil("piece0", "duration", "long"), "no duration", "piece piece0"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, content, kind, place):
    root = data_folders.vgmidi(tmp_path, content)
    songs, findings = parse.read(root, NO_AUDIO)
    (problem,) = findings.problems
    assert problem.kind == kind and problem.where.endswith(place)
    kept = {rating.annotator_id for song in songs for rating in song.ratings}
    assert len(kept) == 3
    with pytest.raises(UserError, match="strict"):
        parse.read(root, ReadOptions(require_audio=False, strict=True))


@pytest.mark.parametrize("text", ["{", "[]", '{"pieces": {}}', '{"pieces": {"a": 1}}'])
def test_a_file_that_is_not_the_json_it_should_be(tmp_path, text):
    root = data_folders.vgmidi(tmp_path)
    (root / "labeled" / "annotations" / "vgmidi_raw_1.json").write_text(text)
    with pytest.raises(UserError, match=r"vgmidi_raw_1\.json"):
        parse.read(root)


def test_wrong_root_and_no_midi(tmp_path):
    with pytest.raises(UserError, match=r"expected 'annotations/vgmidi_raw_1.json'"):
        parse.read(tmp_path)
    root = data_folders.vgmidi(tmp_path)
    (root / "labeled" / "midi").rename(root / "elsewhere")
    with pytest.raises(UserError, match="no song has both"):
        parse.read(root)


@pytest.fixture
def tune(tmp_path):
    path = tmp_path / "tune.mid"
    path.write_bytes(data_folders.midi_bytes(2.0, note=69))
    return path


@pytest.mark.parametrize("rate", [48000, 22050])
def test_rendering_has_length_pitch_and_is_the_same_each_time(tune, rate):
    samples = midi.render(tune, rate)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) / rate - 2.0) < 0.05
    assert midi.check(tune) == pytest.approx(2.0)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    loudest = np.argmax(spectrum) * rate / len(samples)
    assert abs(loudest / 440 - round(loudest / 440)) < 0.02  # a partial of the A that it plays
    np.testing.assert_array_equal(samples, midi.render(tune, rate))


def test_damaged_midi_is_told(tune):
    whole = tune.read_bytes()
    for content in (b"", b"not music", whole[:20], whole[:-8]):
        tune.write_bytes(content)
        with pytest.raises(UserError, match=r"tune\.mid"):
            midi.render(tune, 22050)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        midi.render(tune.with_name("gone.mid"), 22050)
    tune.write_bytes(whole)
    with pytest.raises(UserError, match=r"cannot be rendered with tune\.mid"):
        midi.render(tune, 22050, sound_font=tune)


def test_a_file_without_notes_and_an_endless_one(tune, monkeypatch):
    monkeypatch.setattr(midi, "LONGEST_S", 1)
    with pytest.raises(UserError, match="lasts 2 s; expected more than 0 s and at most 1 s"):
        midi.render(tune, 22050)
    tune.write_bytes(b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk\0\0\0\4\0\xff\x2f\0")
    with pytest.raises(UserError, match="lasts 0 s"):
        midi.render(tune, 22050)


@pytest.mark.parametrize("package", ["midirenderer", "pretty_midi"])
def test_a_missing_package_is_told_in_a_sentence(tune, monkeypatch, package):
    plain_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name == package:
            raise ImportError(name)
        return plain_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=f"needs {package}: pip install -r requirements-vgmidi.txt"):
        midi.render(tune, 22050)
