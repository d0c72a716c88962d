"""Faults of a data set are reported with file and row and counted; they are errors if strict."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsaml_jax.errors import UserError
from dsaml_jax.preparation import fill
from tests import data_folders
from tests.preparation.test_preparation import experiment, preparation_of

TABLE = Path("annotations") / "dynamic_annotations.csv"
ROOT = Path(__file__).parents[2]


def spoil_cell(root, old, new):
    path = root / TABLE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def text_for_a_number(root):
    spoil_cell(root, "4,16.0,0.51", "4,16.0,loud")


def outside_the_scale(root):
    spoil_cell(root, "4,16.0,0.51", "4,16.0,1.7")


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


FAULTS = {  # how it is counted, the place that is named, what is left of the three songs
    text_for_a_number: ("not a number", "row 37, column Arousal(mean)", ["1"]),
    outside_the_scale: ("outside the scale", "row 37, column Arousal(mean)", ["1"]),
    two_files_for_one_song: ("two files for one song", "chorus/4.mp3", ["1", "4"]),
    unreadable: ("audio set aside", "chorus/4.mp3", ["1"]),
    empty: ("audio set aside", "chorus/4.mp3", ["1"]),
    shorter_than_rated: ("audio shorter than the rated span", "chorus/1.mp3", ["1", "4"]),
    ends_before_the_ratings: ("audio shorter than the rated span", "chorus/4.mp3", ["1"]),
    samples_are_no_numbers: ("audio set aside", "chorus/4.wav", ["1"]),
}


@pytest.fixture
def root(tmp_path):
    """PMEmo with two songs that have all they need."""
    root = data_folders.pmemo(tmp_path / "pmemo")
    path = root / TABLE
    path.write_text("\n".join(line for line in path.read_text().splitlines() if line[:2] != "5,"))
    return root


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_a_fault_is_named_and_counted_and_fatal_if_strict(root, tmp_path, spoil):
    spoil(root)
    kind, place, left = FAULTS[spoil]
    prepared = preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
    assert [song.song_id for song in prepared.songs] == left
    told = [problem for problem in prepared.findings.problems if problem.kind == kind]
    assert len(told) == 1 and prepared.findings.problem_counts()[kind] == 1
    assert place in told[0].where
    assert f"{told[0].where}: {told[0].what}" in prepared.findings.text()
    with pytest.raises(UserError, match="strict reading stops at the first problem") as caught:
        preparation_of(experiment("pmemo", root, tmp_path / "prepared", **{"data.strict": True}))
    assert place in str(caught.value) and "\n" not in str(caught.value)


def test_missing_audio_is_counted_and_fatal_if_strict(root, tmp_path):
    (root / "chorus" / "4.mp3").unlink()
    prepared = preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
    assert prepared.findings.missing_audio == ("4",)
    with pytest.raises(UserError, match="1 of 2 songs with ratings have no audio"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared", **{"data.strict": True}))


def test_no_usable_audio_at_all_is_refused(root, tmp_path):
    for path in (root / "chorus").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 2 songs has usable.*1\.mp3 is empty"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared"))


@pytest.mark.parametrize("moment", ["make_job", "over_processes"])
def test_a_folder_that_vanishes_is_no_fault_of_its_songs(root, tmp_path, monkeypatch, moment):
    """Before audio is hashed, or decoded: what is left would be a smaller data set."""
    whole = experiment("pmemo", root, tmp_path / "prepared", **{"data.processes": 1})
    true = getattr(fill, moment)

    def vanish(*arguments):
        shutil.rmtree(root / "chorus", ignore_errors=True)
        return true(*arguments)

    monkeypatch.setattr(fill, moment, vanish)
    with pytest.raises(UserError, match=r"mp3 existed when the labels were read and has disapp"):
        preparation_of(whole)


def test_labels_and_audio_of_different_songs_are_refused(root, tmp_path):
    for path in list((root / "chorus").iterdir()):
        path.rename(path.with_stem(f"9{path.stem}"))
    with pytest.raises(UserError, match="2 songs have ratings, 3 audio files were found, and no"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared"))


def test_a_missing_column_is_named_with_its_file(root, tmp_path):
    spoil_cell(root, "Valence(mean)", "Valenz")
    with pytest.raises(UserError, match=r"dynamic_annotations\.csv has no column Valence\(mean\)"):
        preparation_of(experiment("pmemo", root, tmp_path / "prepared"))


def test_audio_that_no_header_tells_of_is_cut_as_decoded(root, tmp_path):
    """A header may promise more than there is: the sound itself decides."""
    path = root / "chorus" / "1.wav"
    (root / "chorus" / "1.mp3").unlink()
    data_folders.audio(path, 32.1)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 8000 * 20])
    prepared = preparation_of(experiment("pmemo", root, tmp_path / "prepared"))
    song = next(song for song in prepared.songs if song.song_id == "1")
    assert song.duration_s == pytest.approx(20, abs=0.01)
    assert len(song.ratings[0].curve) == 10
    assert prepared.findings.problem_counts()["audio shorter than the rated span"] == 1


def test_a_root_that_does_not_exist_is_told(tmp_path):
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
def test_the_command_says_it_in_one_sentence(tmp_path, arguments, sentence):
    ran = subprocess.run(
        [
            *(sys.executable, "launch.py", "--config=configs/deam_pdmer.py", "--mode=prepare"),
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
