"""Reading of DEAM: its layout, quirks and faulty files."""

import shutil

import numpy as np
import pytest

from dsaml_jax.datasets import report
from dsaml_jax.datasets.deam import parse
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.datasets.schema import EVERYONE
from dsaml_jax.errors import UserError
from tests import data_folders


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return data_folders.deam(tmp_path_factory.mktemp("deam"))


@pytest.fixture(scope="module")
def deam(original):
    songs, findings = parse.read(original)
    return {song.song_id: song for song in songs}, findings


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "deam")


def names(song):
    return [rating.annotator_id for rating in song.ratings]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_songs_annotators_and_metadata_are_read(deam):
    songs, _ = deam
    assert list(songs) == ["2", "1001", "1002", "2001"]
    assert names(songs["2"]) == [EVERYONE]
    assert names(songs["1001"]) == ["w1", "w2", EVERYONE]
    assert names(songs["2001"]) == ["w2", EVERYONE]
    assert {song.ratings_start_s for song in songs.values()} == {15.0}
    assert songs["2"].audio == "DEAM_audio/MEMD_audio/2.mp3"
    assert (songs["2"].title, songs["2"].artist, songs["2"].genre) == (
        "A song, slow",
        "Someone",
        "Blues",
    )
    assert [parse.split_of(song) for song in songs.values()] == ["train"] * 3 + ["test"]


def test_curves_have_the_values_of_the_files(deam):
    songs, _ = deam
    first, second, average = songs["1001"].ratings
    for dimension, level in enumerate((0.2, -0.2)):
        wave = data_folders.wave
        np.testing.assert_allclose(first.curve[:, dimension], wave(60, level), atol=1e-6)
        np.testing.assert_allclose(second.curve[:, dimension], wave(60, level + 0.1), atol=1e-6)
        np.testing.assert_allclose(average.curve[:, dimension], wave(60, level), atol=1e-6)
    assert first.curve.dtype == np.float32


def test_everything_that_is_left_out_is_counted(deam):
    _, findings = deam
    assert (findings.songs, findings.labeled_songs, findings.audio_files) == (4, 5, 5)
    assert findings.missing_audio == ("3",)
    assert findings.unlabeled_audio == ("9",)
    assert (findings.annotators, findings.ratings, findings.aggregates) == (3, 5, 4)
    assert findings.dropped() == {
        "the file does not identify its raters": 2,
        "the annotator's second rating of the song": 1,
        "no usable row in the other dimension": 1,
    }
    assert findings.counts["curves cut because arousal and valence differ in length"] == 1
    # 44.7 s includes the start of the 60th half second, 40.1 s only that of the 51st.
    assert findings.counts["audio files that end before the last rated half second does"] == 2
    assert findings.counts["values left out that lie up to 1 s past the audio"] == 1
    assert findings.problem_counts() == {"audio shorter than the rated span": 1}


def test_ratings_end_with_the_audio(deam):
    songs, findings = deam
    assert [len(rating.curve) for rating in songs["1002"].ratings] == [51, 51, 51]
    assert [len(rating.curve) for rating in songs["1001"].ratings] == [60, 60, 60]
    (problem,) = findings.problems
    assert problem.where == "DEAM_audio/MEMD_audio/1002.mp3"
    assert "27 values of 3 ratings" in problem.what


def test_findings_round_trip_and_list_everything(deam, tmp_path):
    _, findings = deam
    findings.save(tmp_path)
    assert report.load(tmp_path) == findings
    text = findings.text()
    for part in ("songs with ratings      5", "1 (song 3)", "1 (file 9)", "1002.mp3: lasts 40.1"):
        assert part in text
    (tmp_path / report.FILE_NAME).write_text("{")
    with pytest.raises(UserError, match="prepare the data set again"):
        report.load(tmp_path)


def test_a_folder_one_level_deeper_is_found(root, deam):
    songs, findings = parse.read(root.parent)
    assert [song.song_id for song in songs] == list(deam[0])
    assert songs[0].audio == "deam/DEAM_audio/MEMD_audio/2.mp3"
    assert (root.parent / songs[0].audio).is_file()
    assert findings.ratings == deam[1].ratings


def test_two_copies_are_rejected(root):
    shutil.copytree(root, root.parent / "copy")
    with pytest.raises(UserError, match="twice"):
        parse.read(root.parent)


def test_songs_without_audio_are_read_only_on_request(root):
    songs, findings = parse.read(root, ReadOptions(require_audio=False))
    assert {song.song_id: (song.audio, song.duration_s) for song in songs}["3"] == ("", 45.0)
    assert findings.songs == 5 and findings.missing_audio == ("3",)


@pytest.mark.parametrize(
    ("song_id", "old", "new", "kind", "place"),
    [
        (1001, "w2, ", "w2, high, ", "not a number", "1001.csv, row 3, column sample_15000ms"),
        (None, "\n3, ", "\n3, loud, ", "not a number", "arousal.csv, row 3, column sample_15000ms"),
        (1002, "w3,0.5", "w3,1.5", "outside the scale", "1002.csv, row 3, column sample_15000ms"),
        (1001, "w2, ", ", ", "no annotator", "1001.csv, row 3, column WorkerId"),
        (1001, "w2, ", "all, ", "no annotator", "1001.csv, row 3, column WorkerId"),
        (None, "\n3, ", "\n2, ", "two rows for one song", "arousal.csv, row 3"),
        (1002, "w3,0.5", "w3,0.5,0.5", "more cells than columns", "1002.csv, row 3"),
    ],
)
def test_an_invalid_row_is_named_and_the_rest_is_read(root, song_id, old, new, kind, place):
    edit(data_folders.deam_file(root, "arousal", song_id), old, new)
    songs, findings = parse.read(root)
    problems = [problem for problem in findings.problems if problem.kind == kind]
    assert len(problems) == 1
    assert problems[0].where.endswith(place)
    assert len(songs) == 4
    with pytest.raises(UserError, match="strict"):
        parse.read(root, ReadOptions(strict=True))


def test_a_gap_between_values_drops_the_rating(root):
    edit(data_folders.deam_file(root, "valence", 1002), "w3,0.5,0.5", "w3,0.5,")
    songs, findings = parse.read(root)
    assert names(songs[2]) == ["w1", EVERYONE]
    assert findings.dropped()["a hole between values"] == 1


def test_two_files_for_one_song_are_reported(root):
    data_folders.audio(root / "DEAM_audio" / "MEMD_audio" / "0002.wav", 45)
    songs, findings = parse.read(root)
    assert findings.problem_counts()["two files for one song"] == 1
    problem = next(problem for problem in findings.problems if "two files" in problem.kind)
    assert problem.where.endswith("2.mp3") and "0002.wav" in problem.what
    assert songs[0].audio.endswith("0002.wav")


def test_audio_of_unknown_length_is_kept_and_counted(root):
    (root / "DEAM_audio" / "MEMD_audio" / "2.mp3").write_bytes(b"")
    songs, findings = parse.read(root)
    assert (songs[0].song_id, songs[0].duration_s) == ("2", 45.0)
    assert findings.counts["audio files whose length cannot be read from their header"] == 1


def test_averages_or_individual_ratings_suffice(root):
    (root / "DEAM_Annotations/annotations/annotations per each rater").rename(root / "away")
    songs, findings = parse.read(root)
    assert findings.annotators == 0 and all(names(song) == [EVERYONE] for song in songs)
    (root / "away").rename(root / "annotations per each rater")
    (root / "DEAM_Annotations/annotations/annotations averaged per song").rename(root / "gone")
    songs, findings = parse.read(root)
    assert findings.aggregates == 0 and [song.song_id for song in songs] == ["1001", "1002", "2001"]


def test_wrong_roots_are_rejected(root, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        parse.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        parse.read(data_folders.deam_file(root, "arousal"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="expected 'annotations averaged per song"):
        parse.read(empty)


def test_missing_columns_and_files_are_rejected(root):
    path = data_folders.deam_file(root, "arousal")
    edit(path, "song_id", "song")
    with pytest.raises(UserError, match=r"arousal\.csv has no column song_id; its columns are"):
        parse.read(root)
    edit(path, "song, ", "song_id, ")
    edit(path, "sample_15500ms", "sample_15600ms")
    with pytest.raises(UserError, match="sample_15600ms that does not follow"):
        parse.read(root)
    path.unlink()
    with pytest.raises(UserError, match=r"arousal\.csv is missing"):
        parse.read(root)


def test_labels_without_any_audio_are_rejected(root):
    (root / "DEAM_audio").rename(root / "elsewhere")
    (root / "elsewhere" / "MEMD_audio").rename(root / "elsewhere" / "music")
    with pytest.raises(UserError, match="5 songs have ratings, 0 audio files"):
        parse.read(root)


def test_strict_reading_rejects_missing_audio(root):
    clips = root / "DEAM_audio" / "MEMD_audio"
    data_folders.audio(clips / "1002.mp3", 45)
    with pytest.raises(UserError, match="1 of 5 songs with ratings have no audio file"):
        parse.read(root, ReadOptions(strict=True))
    data_folders.audio(clips / "3.mp3", 45)
    songs, findings = parse.read(root, ReadOptions(strict=True))
    assert len(songs) == 5 and not findings.problems


def test_tables_of_one_dimension_copied_to_the_other_are_rejected(root):
    for song_id in (None, 1001, 1002, 2001):
        valence = data_folders.deam_file(root, "valence", song_id)
        shutil.copy(valence, data_folders.deam_file(root, "arousal", song_id))
    with pytest.raises(UserError, match="arousal and valence are the same in every rating"):
        parse.read(root)
