"""Loading of data sets from their folders into corpora."""

import logging

import numpy as np
import pytest

from configs import base
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.fingerprint import fingerprint
from dsaml_jax.data.loading import load_corpora, partition_of
from dsaml_jax.datasets.schema import EVERYONE, Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.differences import differences
from tests import data_folders


def experiment(name, root, folder, **changes):
    config = base.get_config()
    config.data.name, config.data.root = name, str(root)
    config.data.prepared = str(folder)
    config.data.processes = 1
    config.data.labels = "consensus"
    config.tasks.meta_batch = 1
    config.audio.sample_rate = 8_000
    config.audio.hop_s = config.audio.window_s = 0.1
    config.audio.mel_bands = 8
    config.audio.segments = 20
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


def test_deam_trains_on_first_clips_and_tests_whole_songs(tmp_path):
    root = data_folders.deam(tmp_path / "deam")
    corpora = load_corpora(experiment("deam", root, tmp_path / "prepared"))
    songs = {split: set(corpus.song_ids) for split, corpus in corpora.items()}
    assert songs["test"] == {"2001"}
    assert songs["train"] | songs["validation"] == {"2", "1001", "1002"}
    assert not songs["train"] & songs["validation"]
    assert all(corpus.annotator_ids == (EVERYONE,) for corpus in corpora.values())
    for split in ("train", "validation"):
        assert corpora[split].curve.shape[1] == 20 and corpora[split].features == ()
    # Song 2001 has 69 averaged values and audio for all of them.
    assert corpora["test"].curve.shape[1] >= 69 and corpora["test"].valid.sum() == 69
    assert len(corpora["test"].features[0].log_mel) == corpora["test"].curve.shape[1]
    np.testing.assert_allclose(corpora["train"].tables.embedding.mean(0), 0, atol=1e-4)
    np.testing.assert_array_equal(
        corpora["test"].features[0].embeddings[0], corpora["test"].tables.embedding[0]
    )


def test_fingerprints_ignore_the_location_and_detect_changed_content(tmp_path):
    root = data_folders.deam(tmp_path / "deam")

    def fingerprint_of(folder, where=root):
        return fingerprint(load_corpora(experiment("deam", where, tmp_path / folder)))

    before = fingerprint_of("prepared")
    moved = root.rename(tmp_path / "elsewhere")
    assert fingerprint_of("again", moved) == before
    data_folders.audio(moved / "DEAM_audio" / "MEMD_audio" / "2001.mp3", 50)  # was 51 s
    assert [line.split()[0] for line in differences(before, fingerprint_of("again", moved))] == [
        "test.content"
    ]


def test_deam_without_its_test_songs_is_split_at_random_with_a_notice(tmp_path, caplog):
    root = data_folders.deam(tmp_path / "deam")
    (root / "DEAM_audio" / "MEMD_audio" / "2001.mp3").unlink()
    with caplog.at_level(logging.INFO, logger="dsaml_jax"):
        corpora = load_corpora(experiment("deam", root, tmp_path / "prepared"))
    assert [len(corpus.song_ids) for corpus in corpora.values()] == [1, 1, 1]
    assert "no test songs of these 3 songs, so test songs are drawn at random" in caplog.text


def test_pmemo_is_split_at_random_and_short_choruses_are_masked(tmp_path):
    root = tmp_path / "pmemo"
    rows = [
        [song, 15.5 + i / 2, 0.5 + 0.01 * (i % 7), 0.6]
        for song, n in ((1, 34), (2, 8), (3, 30), (4, 26))
        for i in range(n)
    ]
    header = ["musicId", "frameTime", "Arousal(mean)", "Valence(mean)"]
    data_folders.table(root / "annotations" / "dynamic_annotations.csv", header, rows)
    for song in (1, 2, 3, 4):
        data_folders.audio(root / "chorus" / f"{song}.mp3", 33 + song / 10)
    corpora = load_corpora(experiment("pmemo", root, tmp_path / "prepared"))
    assert sorted(name for corpus in corpora.values() for name in corpus.song_ids) == list("1234")
    rated = {
        name: int(valid.sum())
        for corpus in corpora.values()
        for name, valid in zip(corpus.song_ids, corpus.valid, strict=True)
    }
    assert rated["2"] == 8
    test = corpora["test"]
    assert test.valid.sum() in (8, 26, 30, 34)


def test_too_few_songs_with_audio_are_rejected(tmp_path):
    root = data_folders.pmemo(tmp_path / "pmemo")
    with pytest.raises(UserError, match="2 songs have averaged ratings and audio"):
        load_corpora(experiment("pmemo", root, tmp_path / "prepared"))


def test_annotators_of_the_official_test_songs_are_left_out_of_training(tmp_path):
    """Training ratings of annotators in both official splits are counted but not used."""
    chosen = experiment(
        "deam", tmp_path, tmp_path, **{"data.labels": "personal", "tasks.meta_batch": 2}
    )

    def songs(first, *people):
        curve = np.zeros((20, 2), np.float32)
        return tuple(
            Song(f"{first + i}", 45.0, 15.0, tuple(Rating(name, curve) for name in people))
            for i in range(6)
        )

    splits = {"train": songs(1001, "a", "b", "both"), "test": songs(2001, "both", "z")}
    partition = partition_of(chosen.data, splits)
    people = {
        split: {rating.annotator_id for song in songs for rating in song.ratings}
        for split, songs in partition.songs.items()
    }
    assert people["test"] == {"both", "z"} and "both" not in people["train"]
    assert partition.across["test", "train"] + partition.across.get(("test", "validation"), 0) == 6
