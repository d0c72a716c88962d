"""PMEmo's two layouts, their quirks and faults."""

import numpy as np
import pytest

from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.datasets.pmemo import parse
from dsaml_jax.datasets.pmemo.parse import PmemoOptions
from dsaml_jax.datasets.schema import EVERYONE
from dsaml_jax.errors import UserError
from tests import data_folders


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_averages_are_mapped_and_placed(tmp_path):
    songs, findings = parse.read(data_folders.pmemo(tmp_path))
    assert [song.song_id for song in songs] == ["1", "4"]
    song = songs[0]
    assert (song.title, song.artist, song.audio) == ("One", "Somebody", "chorus/1.mp3")
    assert song.ratings_start_s == 15.0
    (rating,) = song.ratings
    assert rating.annotator_id == EVERYONE
    expected = [[2 * (0.5 + 0.01 * (i % 7)) - 1, 0.2] for i in range(34)]
    np.testing.assert_allclose(rating.curve, expected, atol=1e-6)
    assert (findings.labeled_songs, findings.songs) == (3, 2)
    assert (findings.missing_audio, findings.unlabeled_audio) == (("5",), ("6",))
    assert findings.counts["rows of averaged ratings"] == 46
    assert (findings.aggregates, findings.ratings, findings.problems) == (2, 0, ())


def test_labels_alone_need_no_audio(tmp_path):
    root = data_folders.pmemo(tmp_path)
    (root / "chorus").rename(root / "music")
    with pytest.raises(UserError, match="3 songs have ratings, 0 audio files"):
        parse.read(root)
    songs, findings = parse.read(root, PmemoOptions(require_audio=False))
    assert [song.duration_s for song in songs] == [32.0, 16.0, 20.0]
    assert findings.missing_audio == ("1", "4", "5")


@pytest.mark.parametrize(
    ("old", "new", "kind", "place"),
    [
        ("4,16.0,", "4,16.5,", "a time gap", "row 37, column frameTime"),
        ("4,16.0,0.51", "4,16.0,1.51", "outside the scale", "row 37, column Arousal(mean)"),
        ("4,16.0,0.51", "4,16.0,calm", "not a number", "row 37, column Arousal(mean)"),
        ("4,16.0,", "4,later,", "not a number", "row 37, column frameTime"),
    ],
)
def test_a_bad_row_costs_its_song_and_no_other(tmp_path, old, new, kind, place):
    root = data_folders.pmemo(tmp_path)
    edit(root / parse.AVERAGED, old, new)
    songs, findings = parse.read(root)
    assert [song.song_id for song in songs] == ["1"]
    (problem,) = findings.problems
    assert problem.kind == kind
    assert problem.where == f"annotations/dynamic_annotations.csv, {place}"
    with pytest.raises(UserError, match="strict"):
        parse.read(root, PmemoOptions(strict=True))


def test_missing_column_and_wrong_root(tmp_path):
    root = data_folders.pmemo(tmp_path)
    edit(root / parse.AVERAGED, "frameTime", "time")
    with pytest.raises(UserError, match=r"dynamic_annotations\.csv has no column frameTime"):
        parse.read(root)
    with pytest.raises(UserError, match=r"expected 'annotations/dynamic_annotations.csv' or"):
        parse.read(root / "chorus")


TIMES = [f"{15.5 + i / 2}" for i in range(22)]


@pytest.mark.parametrize(
    "header",
    [
        ("userId", "static", "dynamic"),
        ("subject", "overall arousal"),
        ("subjectId", "static", *TIMES),
        ("worker", "static", *data_folders.sample_header([], 22)),
    ],
)
def test_subjects_of_2018(tmp_path, header):
    songs, findings = parse.read(data_folders.pmemo_2018(tmp_path, header))
    (song,) = songs
    assert [rating.annotator_id for rating in song.ratings] == ["100177", "100178", EVERYONE]
    assert [len(rating.curve) for rating in song.ratings] == [20, 22, 22]
    assert (song.ratings_start_s, findings.annotators, findings.problems) == (15.0, 2, ())
    first, second, everyone = (rating.curve for rating in song.ratings)
    np.testing.assert_allclose(
        first[:, 0], 2 * np.array(data_folders.wave(20, 0.5, 0.2)) - 1, atol=1e-6
    )
    np.testing.assert_allclose(everyone[:20], (first + second[:20]) / 2, atol=1e-6)
    np.testing.assert_allclose(everyone[20:], second[20:], atol=1e-6)


def test_subjects_may_come_without_a_static_rating(tmp_path):
    root = data_folders.pmemo_2018(tmp_path)
    for path in (root / "Annotations").rglob("*.csv"):
        edit(path, "userId,static,dynamic", "userId,dynamic")
        edit(path, "100177,0.5,", "100177,")
        edit(path, "100178,0.6,", "100178,")
    (song,) = parse.read(root)[0]
    assert [len(rating.curve) for rating in song.ratings] == [20, 22, 22]


@pytest.mark.parametrize(
    "header",
    [
        ("userId", "mood", "dynamic", "more"),
        ("static", "dynamic"),
        ("userId", "static", "0.5", "1.0"),
        ("userId", "static", "15.5", "16.5"),
        ("userId",),
    ],
)
def test_a_form_that_is_not_known_is_refused(tmp_path, header):
    root = data_folders.pmemo_2018(tmp_path, header)
    with pytest.raises(UserError, match=r"7-A\.csv has the columns .*an unknown form"):
        parse.read(root)


def test_faults_of_2018(tmp_path):
    root = data_folders.pmemo_2018(tmp_path)
    arousal = root / "Annotations" / "Arousal"
    edit(arousal / "7-A.csv", "100178,0.6,", "100178,0.6,9")
    (arousal / "8-A.csv").write_text("userId,static,dynamic\n1,0.5,0.5,0.6\n")
    (arousal / "readme.csv").write_text("x\n")
    songs, findings = parse.read(root)
    assert findings.problem_counts() == {
        "outside the scale": 1,
        "rated in one dimension only": 1,
        "unexpected file name": 1,
    }
    assert findings.dropped() == {"no usable row in the other dimension": 1}
    assert [rating.annotator_id for rating in songs[0].ratings] == ["100177", EVERYONE]
    (root / "Annotations" / "Valence").rename(root / "elsewhere")
    with pytest.raises(UserError, match="Valence is missing"):
        parse.read(root)


def test_two_releases_ask_for_a_choice(tmp_path):
    root = data_folders.pmemo_2018(data_folders.pmemo(tmp_path) / "old").parent
    with pytest.raises(UserError, match="release=2019 or release=2018"):
        parse.read(root)
    assert parse.read(root, PmemoOptions(release="2019", require_audio=False))[1].songs == 3
    assert parse.read(root, PmemoOptions(release="2018", require_audio=False))[1].annotators == 2
    with pytest.raises(UserError, match="expected one of auto, 2018, 2019"):
        PmemoOptions(release="2020")
    assert isinstance(PmemoOptions(), ReadOptions)
