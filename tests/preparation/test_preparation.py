"""Preparation of a folder: songs with features, incremental work, filters and the report."""

import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs import deam_paper
from dsaml_jax.audio import store
from dsaml_jax.audio.decoding import decode
from dsaml_jax.audio.features import clip_features, window_starts
from dsaml_jax.commands.prepare import FOLDER, prepare
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.errors import UserError
from dsaml_jax.preparation import prepared_songs
from tests import data_folders, kill_preparation, tiny

SEGMENTS = 12


def preparation_of(experiment):
    return prepared_songs(experiment.data, experiment.audio)


def experiment(name, root, prepared, **changes):
    config = tiny.get_config()
    config.data.name, config.data.root, config.data.prepared = name, str(root), str(prepared)
    config.data.builder = {}
    config.data.filters.more_songs_than = 0
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


def entries(prepared):
    """Returns the content and modification time of every entry of a feature store."""
    paths = sorted((prepared / "features").rglob("*.npz"))
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def by_id(prepared, song_id):
    return next(song for song in prepared.songs if song.song_id == song_id)


@pytest.fixture(scope="module")
def deam(tmp_path_factory):
    """Returns the root, the folder of prepared data, and the prepared data set."""
    root = data_folders.deam(tmp_path_factory.mktemp("deam"))
    folder = tmp_path_factory.mktemp("prepared")
    return root, folder, preparation_of(experiment("deam", root, folder))


def test_every_song_has_ratings_and_matching_features(deam):
    _, _, prepared = deam
    names = {split: [song.song_id for song in songs] for split, songs in prepared.splits.items()}
    assert names == {"test": ["2001"], "train": ["2", "1001", "1002"]}
    assert set(prepared.features) == {song.song_id for song in prepared.songs}
    assert (prepared.findings.songs, prepared.findings.missing_audio) == (4, ("3",))
    for song in prepared.songs:
        features = prepared.features[song.song_id]
        longest = max(len(rating.curve) for rating in song.ratings)
        assert len(features.log_mel) >= max(longest, SEGMENTS)
        assert features.log_mel.dtype == features.embeddings.dtype == np.float32
        assert len(features.starts) == len(features.embeddings)
        assert np.isfinite(features.log_mel).all() and np.isfinite(features.embeddings).all()
        assert song.waveform is None and song.ratings


def test_every_window_of_a_song_equals_that_clip(deam):
    """Images and embeddings of a window are the features of the clip that starts there."""
    root, folder, prepared = deam
    audio = experiment("deam", root, folder).audio
    song = by_id(prepared, "2001")
    features = prepared.features["2001"]
    waveform, rate = decode(root / song.audio)
    n = len(features.log_mel)
    assert n == 70
    np.testing.assert_array_equal(features.starts, [*range(0, n - SEGMENTS, 10), n - SEGMENTS])
    for start, embedding in zip(features.starts, features.embeddings, strict=True):
        clip = clip_features(waveform, rate, song.ratings_start_s + start / 2, audio)
        images = features.log_mel[start : start + SEGMENTS]
        np.testing.assert_allclose(images, clip.log_mel, atol=1e-5)
        np.testing.assert_allclose(embedding, clip.embedding, atol=1e-5)


def test_window_starts_cover_songs_of_any_length(deam):
    audio = experiment("deam", *deam[:2]).audio
    for n, starts in ((3, [0]), (12, [0]), (13, [0, 1]), (22, [0, 10]), (25, [0, 10, 13])):
        np.testing.assert_array_equal(window_starts(n, audio), starts)


def test_audio_that_ends_early_is_padded_with_silence(deam):
    """Song 1002 lasts 40.1 s and is rated from 15 s on; its ratings and span end at 40.1 s."""
    root, folder, prepared = deam
    assert {len(rating.curve) for rating in by_id(prepared, "1002").ratings} == {51}
    assert prepared.silence_s["1002"] == pytest.approx(0.4, abs=0.01)
    assert "2001" not in prepared.silence_s
    longer = experiment("deam", root, folder, **{"audio.segments": 100})
    again = preparation_of(longer)
    features = again.features["1002"]
    assert len(features.log_mel) == 100
    assert again.silence_s["1002"] == pytest.approx(15 + 50 - 40.1, abs=0.1)
    np.testing.assert_allclose(features.log_mel[-40:], np.log(longer.audio.floor), rtol=1e-6)


def test_preparing_again_computes_nothing(deam, caplog):
    root, folder, prepared = deam
    before = entries(folder)
    with caplog.at_level(logging.INFO, "dsaml_jax"):
        again = preparation_of(experiment("deam", root, folder))
    assert "nothing to compute, all 4 songs already stored" in caplog.text
    assert "without weights" in caplog.text
    assert entries(folder) == before
    assert (prepared.already_there, again.already_there) == (0, 4)
    assert again.findings == prepared.findings


def test_a_change_recomputes_only_dependent_features(deam, tmp_path):
    root, folder, _ = deam
    kinds = {kind: len(list((folder / "features" / kind).iterdir())) for kind in store.KINDS}
    preparation_of(experiment("deam", root, folder, **{"audio.embedding_hop": 7}))
    after = {kind: len(list((folder / "features" / kind).iterdir())) for kind in store.KINDS}
    assert after["log_mel"] == kinds["log_mel"]
    assert after["embedding"] == kinds["embedding"] + 4
    preparation_of(experiment("deam", root, folder, **{"audio.mel_bands": 8}))
    assert len(list((folder / "features" / "log_mel").iterdir())) == kinds["log_mel"] + 4


def test_filters_are_counted_by_split(deam):
    """w3's rating of 1002 is flat; w1 rates two songs of the training split, the others one."""
    root, folder, prepared = deam
    assert (prepared.filtered["train"].flat, prepared.filtered["test"].flat) == (1, 0)
    again = preparation_of(experiment("deam", root, folder, **{"data.filters.more_songs_than": 1}))
    people = {rating.annotator_id for song in again.songs for rating in song.ratings}
    assert people == {"w1", "all"}
    assert again.findings.dropped()["its annotator rated too few songs"] == 2
    assert again.findings.ratings == 2


def test_filters_that_leave_no_rating_are_rejected(deam, tmp_path):
    root = shutil.copytree(deam[0], tmp_path / "deam")
    shutil.rmtree(data_folders.deam_file(root, "arousal").parent)
    with pytest.raises(
        UserError, match=r"no annotator's rating passes data.filters: .*more_songs_than=9"
    ):
        preparation_of(experiment("deam", root, deam[1], **{"data.filters.more_songs_than": 9}))


def test_the_report_lists_counts_and_problems(deam, tmp_path):
    root, folder, _ = deam
    text = prepare(experiment("deam", root, folder), tmp_path / "run")
    report = (tmp_path / "run" / FOLDER / "report.txt").read_text()
    for line in (
        "train: 3 songs, 2 of them rated by people; 2 annotators, 3 ratings; 3 averaged ratings",
        "ratings a song: 1 to 2, median 1.5; songs an annotator: 1 to 2, median 1.5",
        "ratings without audio   1 (song 3)",
        "left out, it hardly changes: 1 ratings (split train)",
        "left out, the file does not identify its raters: 2 ratings",
        "problem, audio shorter than the rated span: 1",
    ):
        assert line in text and line in report
    shares = [line.split()[2:] for line in text.splitlines() if line.startswith("    -0.4")]
    assert len(shares) == 1 and all(0 <= float(share) <= 100 for share in shares[0])
    findings = json.loads((tmp_path / "run" / FOLDER / "findings.json").read_text())
    assert findings["songs"] == 4
    assert (tmp_path / "run" / FOLDER / "report.png").read_bytes().startswith(b"\x89PNG")
    # Training can start in the folder with the report of its data.
    open_workdir(tmp_path / "run", experiment("deam", root, folder), fresh=True)


def test_labels_without_audio_are_reported_and_rejected(tmp_path):
    root = data_folders.pmemo(tmp_path / "pmemo")
    for path in (root / "chorus").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="3 songs have ratings, 0 audio files were found"):
        prepare(experiment("pmemo", root, tmp_path / "prepared"), tmp_path / "run")
    report = (tmp_path / "run" / FOLDER / "report.txt").read_text()
    assert "songs with ratings      3" in report and "averaged ratings: 46" in report


def test_the_command_prepares_and_reports(deam, tmp_path):
    root = deam[0]
    ran = subprocess.run(
        [
            *(sys.executable, "launch.py", "--config=configs/deam_paper.py", "--mode=prepare"),
            *(f"--config.data.root={root}", f"--config.data.prepared={tmp_path}"),
            *("--config.data.processes=1", f"--workdir={tmp_path / 'run'}"),
        ],
        cwd=kill_preparation.ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Prepared: 4 songs with features and ratings" in ran.stdout
    assert "its annotator rated too few songs: 4 ratings" in ran.stdout.replace("left out, ", "")
    assert "Traceback" not in ran.stderr and "DEAM: 5 songs with ratings" in ran.stderr
    assert (tmp_path / "run" / FOLDER / "report.txt").is_file()


def test_a_preparation_killed_in_two_processes_and_finished_in_one_gives_the_same_store(tmp_path):
    """All processes get SIGKILL while entries are being written; see kill_preparation.py."""
    root = kill_preparation.folder_of_noise(tmp_path / "pmemo", songs=10, seconds=20.0)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    running = kill_preparation.start("pmemo", root, killed, "--config.data.processes=2")
    kill_preparation.kill_when(running, lambda: len(kill_preparation.entries(killed)) >= 3)
    partial = kill_preparation.entries(killed)
    assert len(partial) >= 3
    config = deam_paper.get_config()
    config.data.name, config.data.root, config.data.processes = "pmemo", str(root), 1
    for folder in (killed, whole):
        config.data.prepared = str(folder)
        preparation_of(experiment_from_config(config.to_dict()))
    assert kill_preparation.entries(killed) == kill_preparation.entries(whole)
    assert len(kill_preparation.entries(whole)) == 20
    assert partial.items() <= kill_preparation.entries(whole).items()
