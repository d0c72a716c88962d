"""Faults of a data set are counted and reported with file and row, and are errors if strict."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsaml_jax.audio import store
from dsaml_jax.config.experiment import DataConfig
from dsaml_jax.errors import UserError
from dsaml_jax.preparation import fill, songs
from dsaml_jax.runtime import files
from tests import data_folders
from tests.preparation.test_preparation import experiment, preparation_of

TABLE = Path("annotations") / "dynamic_annotations.csv"
ROOT = Path(__file__).parents[2]


def replace_cell(root, old, new):
    path = root / TABLE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def text_for_a_number(root):
    replace_cell(root, "4,16.0,0.51", "4,16.0,loud")


def outside_the_scale(root):
    replace_cell(root, "4,16.0,0.51", "4,16.0,1.7")


def two_files_for_one_song(root):
    data_folders.audio(root / "chorus" / "04.wav", 17)


def unreadable(root):
    (root / "chorus" / "4.mp3").write_bytes(b"no sound at all" * 99)


def empty(root):
    (root / "chorus" / "4.mp3").write_bytes(b"")


def shorter_than_rated(root):
    data_folders.audio(root / "chorus" / "1.mp3", 22.0)


def ends_before_the_ratings(root):
    data_folders.audio(root / "chorus" / "4.mp3", 3.0)


def samples_are_no_numbers(root):
    (root / "chorus" / "4.mp3").unlink()
    samples = np.full(17 * 8000, np.nan)
    soundfile.write(root / "chorus" / "4.wav", samples, 8000, subtype="FLOAT")


def silent_where_rated(root):
    (root / "chorus" / "4.mp3").unlink()
    sound = np.where(np.arange(18 * 8000) < 17 * 8000, 0.0, 0.1)
    soundfile.write(root / "chorus" / "4.wav", sound, 8000)


def channels_cancel_where_rated(root):
    (root / "chorus" / "4.mp3").unlink()
    left = np.random.default_rng(0).normal(0, 0.1, 18 * 8000)
    right = np.where(np.arange(18 * 8000) < 14 * 8000, left, -left)
    soundfile.write(root / "chorus" / "4.wav", np.stack([left, right], axis=1), 8000)


def one_recording_under_two_ids(root):
    (root / "chorus" / "4.mp3").write_bytes((root / "chorus" / "1.mp3").read_bytes())


def one_sound_in_another_format(root):
    for name in ("1", "4"):
        (root / "chorus" / f"{name}.mp3").unlink()
    data_folders.audio(root / "chorus" / "1.wav", 32.1)
    sound, rate = soundfile.read(root / "chorus" / "1.wav", dtype="int16")
    soundfile.write(root / "chorus" / "4.flac", sound, rate)


def one_mp3_with_other_tags(root):
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)
    (root / "chorus" / "4.mp3").write_bytes(tag + (root / "chorus" / "1.mp3").read_bytes())


def mostly_silent_where_rated(root):
    """Song 1 is rated for 17 s from 15 s on; its sound begins at 25 s."""
    (root / "chorus" / "1.mp3").unlink()
    sound = np.where(np.arange(33 * 8000) < 25 * 8000, 0.0, 0.1)
    soundfile.write(root / "chorus" / "1.wav", sound, 8000)


FAULTS = {  # (kind under which it is counted, place that is named, songs that remain)
    text_for_a_number: ("not a number", "row 37, column Arousal(mean)", ["1"]),
    outside_the_scale: ("outside the scale", "row 37, column Arousal(mean)", ["1"]),
    two_files_for_one_song: ("two files for one song", "chorus/4.mp3", ["1", "4"]),
    unreadable: ("audio set aside", "chorus/4.mp3", ["1"]),
    empty: ("audio set aside", "chorus/4.mp3", ["1"]),
    shorter_than_rated: ("audio shorter than the rated span", "chorus/1.mp3", ["1", "4"]),
    ends_before_the_ratings: ("audio shorter than the rated span", "chorus/4.mp3", ["1"]),
    silent_where_rated: ("audio set aside", "chorus/4.wav", ["1"]),
    channels_cancel_where_rated: ("audio set aside", "chorus/4.wav", ["1"]),
    one_recording_under_two_ids: ("one recording under two ids", "chorus/4.mp3", ["1", "4"]),
    one_sound_in_another_format: ("one recording under two ids", "chorus/4.flac", ["1", "4"]),
    one_mp3_with_other_tags: ("one recording under two ids", "chorus/4.mp3", ["1", "4"]),
    mostly_silent_where_rated: (
        "audio mostly silent where it is rated",
        "chorus/1.wav",
        ["1", "4"],
    ),
    samples_are_no_numbers: ("audio set aside", "chorus/4.wav", ["1"]),
}


@pytest.fixture
def root(tmp_path):
    """Returns PMEmo with two complete songs."""
    root = data_folders.pmemo(tmp_path / "pmemo")
    path = root / TABLE
    path.write_text("\n".join(line for line in path.read_text().splitlines() if line[:2] != "5,"))
    return root


@pytest.mark.parametrize("corrupt", FAULTS, ids=lambda corrupt: corrupt.__name__)
def test_a_fault_is_named_counted_and_fatal_if_strict(root, tmp_path, corrupt):
    corrupt(root)
    kind, place, left = FAULTS[corrupt]
    prepared = preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
    assert [song.song_id for song in prepared.songs] == left
    problems = [problem for problem in prepared.findings.problems if problem.kind == kind]
    assert len(problems) == 1 and prepared.findings.problem_counts()[kind] == 1
    assert place in problems[0].where
    assert f"{problems[0].where}: {problems[0].what}" in prepared.findings.text()
    with pytest.raises(UserError, match="strict reading stops at the first problem") as caught:
        preparation_of(experiment("pmemo", root, tmp_path / "prepared", **{"data.strict": True}))
    assert place in str(caught.value) and "\n" not in str(caught.value)


def test_missing_audio_is_counted_and_fatal_if_strict(root, tmp_path):
    (root / "chorus" / "4.mp3").unlink()
    prepared = preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
    assert prepared.findings.missing_audio == ("4",)
    with pytest.raises(UserError, match="1 of 2 songs with ratings have no audio"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared", **{"data.strict": True}))


def test_a_data_set_without_usable_audio_is_rejected(root, tmp_path):
    for path in (root / "chorus").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 2 songs has usable.*1\.mp3 is empty"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared"))


@pytest.mark.parametrize("moment", ["make_job", "over_processes"])
def test_a_folder_that_disappears_is_an_error_rather_than_a_fault_of_its_songs(
    root, tmp_path, monkeypatch, moment
):
    """The folder disappears before audio is hashed or decoded, which must not shrink the data."""
    whole = experiment("pmemo", root, tmp_path / "prepared", **{"data.processes": 1})
    original = getattr(fill, moment)

    def vanish(*arguments):
        shutil.rmtree(root / "chorus", ignore_errors=True)
        return original(*arguments)

    monkeypatch.setattr(fill, moment, vanish)
    with pytest.raises(UserError, match=r"mp3 existed when the labels were read and has disapp"):
        preparation_of(whole)


def test_labels_and_audio_of_different_songs_are_rejected(root, tmp_path):
    for path in list((root / "chorus").iterdir()):
        path.rename(path.with_stem(f"9{path.stem}"))
    with pytest.raises(UserError, match="2 songs have ratings, 3 audio files were found, and no"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared"))


def test_a_missing_column_is_named_with_its_file(root, tmp_path):
    replace_cell(root, "Valence(mean)", "Valenz")
    with pytest.raises(UserError, match=r"dynamic_annotations\.csv has no column Valence\(mean\)"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared"))


def test_ratings_are_cut_to_the_decoded_length_of_truncated_audio(root, tmp_path):
    """The header of a truncated file states a longer duration than the audio has."""
    path = root / "chorus" / "1.wav"
    (root / "chorus" / "1.mp3").unlink()
    data_folders.audio(path, 32.1)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 8000 * 20])
    prepared = preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
    song = next(song for song in prepared.songs if song.song_id == "1")
    assert song.duration_s == pytest.approx(20, abs=0.01)
    assert len(song.ratings[0].curve) == 10
    assert prepared.findings.problem_counts()["audio shorter than the rated span"] == 1


def test_a_root_that_does_not_exist_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; data\.root must be the folder that"):
        preparation_of(experiment("pmemo", tmp_path / "none", tmp_path / "prepared"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.data.root="], "data.root is missing; give the folder that holds deam"),
        (["--config.data.root=."], "is not DEAM: expected"),
        (
            ["--config.data.root=.", "--config.audio.embedding=imagebind"],
            "data.embedding_weights is empty; give the path of imagebind_huge.pth (CC BY-NC 4.0",
        ),
    ],
)
def test_the_command_reports_mistakes_in_one_sentence(tmp_path, arguments, sentence):
    ran = subprocess.run(
        [
            *(sys.executable, "launch.py", "--config=configs/deam_paper.py", "--mode=prepare"),
            *(f"--workdir={tmp_path / 'run'}", f"--config.data.prepared={tmp_path}", *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    assert sentence in ran.stderr.splitlines()[-1] and "Traceback" not in ran.stderr


def test_a_fault_of_the_input_is_not_blamed_on_the_prepared_folder(root, tmp_path, monkeypatch):
    """Its text may be that of a storage error, such as "Permission denied"."""
    sentence = f"{root / TABLE} cannot be read: Permission denied."
    for error in (UserError(sentence), PermissionError(13, "Permission denied", str(root / TABLE))):

        def fail(*arguments, error=error):
            raise error

        monkeypatch.setattr(songs.catalog, "build", fail)
        with pytest.raises(UserError) as caught:
            preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
        assert str(caught.value) == sentence


def test_a_file_where_tfds_needs_a_folder_is_named(tmp_path):
    place = tmp_path / "prepared" / "synthetic" / ".config"
    place.parent.mkdir(parents=True)
    place.write_text("")
    data = DataConfig(name="synthetic", prepared=str(tmp_path / "prepared"))
    with pytest.raises(UserError, match=rf"{re.escape(str(place))} is a file, where a folder is"):
        songs.read_labels(data)


@pytest.mark.parametrize("name", ["file/prepared", "file", "x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_created_is_rejected(root, tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"(written|is needed).*choose another folder with data\.pr"
    ):
        preparation_of(experiment("pmemo", root, f"{tmp_path}/{name}"))


def test_a_second_preparation_waits_for_the_first(tmp_path):
    """The second gets the lock only after the first has released it."""
    order = []

    def second():
        with files.locked(tmp_path / ".lock"):
            order.append("second")

    with files.locked(tmp_path / ".lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_truncated_entries_are_computed_again(root, tmp_path):
    whole = experiment("pmemo", root, tmp_path / "prepared", **{"data.processes": 1})
    preparation_of(whole)
    paths = sorted((tmp_path / "prepared" / "features").rglob("*.npz"))
    before = [path.read_bytes() for path in paths]
    for path, size in zip(paths, (0, 100, 1000, None), strict=True):
        path.unlink() if size is None else path.write_bytes(path.read_bytes()[:size])
    preparation_of(whole)
    assert [path.read_bytes() for path in paths] == before


@pytest.fixture(scope="module")
def prepared_pmemo(tmp_path_factory):
    """Returns PMEmo's root and the folder of its prepared data."""
    root = data_folders.pmemo(tmp_path_factory.mktemp("pmemo"))
    prepared = tmp_path_factory.mktemp("prepared")
    preparation_of(experiment("pmemo", root, prepared, **{"data.processes": 1}))
    return root, prepared


@pytest.mark.parametrize(
    ("kind", "name", "spoil"),
    [
        ("log_mel", "seconds", lambda a: np.float64("nan")),
        ("log_mel", "seconds", lambda a: np.array("x")),
        ("log_mel", "seconds", lambda a: np.ones(3)),
        ("log_mel", "log_mel", lambda a: np.float32(1)),
        ("log_mel", "log_mel", lambda a: a * np.nan),
        ("log_mel", "log_mel", lambda a: a.astype("U8")),
        ("log_mel", "log_mel", lambda a: a[:, :, :5]),
        ("log_mel", "silent", lambda a: np.True_),
        ("log_mel", "silent", lambda a: np.array(["a"])),
        ("log_mel", "recording", lambda a: np.float64(1)),
        ("embedding", "embeddings", lambda a: a * np.nan),
        ("embedding", "starts", lambda a: a + 0.5),
        ("embedding", "starts", lambda a: a - 1),
    ],
)
def test_entries_of_another_program_are_rejected(prepared_pmemo, tmp_path, kind, name, spoil):
    """Their checksums are right; their values are not."""
    root, original = prepared_pmemo
    prepared = shutil.copytree(original, tmp_path / "prepared")
    entry = sorted((prepared / "features" / kind).glob("*.npz"))[0]
    with np.load(entry) as stored:
        arrays = {key: stored[key] for key in stored if key != "key"}
    store.write(entry, **arrays | {name: spoil(arrays[name])})
    with pytest.raises(UserError, match=rf"{re.escape(str(entry))} h.*prepare the data set again"):
        preparation = preparation_of(experiment("pmemo", root, prepared))
        _ = [preparation.features[song.song_id] for song in preparation.songs]
