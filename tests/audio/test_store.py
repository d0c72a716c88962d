"""The feature store: entries are complete or absent, and keyed by their inputs."""

import os

import numpy as np
import pytest

from dsaml_jax.audio import store
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.datasets.schema import Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation import extract
from tests import data_folders

ARRAYS = {"log_mel": np.arange(12, dtype=np.float32).reshape(3, 4), "seconds": np.float64(1.5)}


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_entries_round_trip_and_are_written_deterministically(tmp_path):
    paths = [store.entry_path(tmp_path / name, "log_mel", "abc") for name in ("one", "two")]
    for path in paths:
        store.write(path, **ARRAYS)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert files(tmp_path) == ["abc.npz", "abc.npz"]
    np.testing.assert_equal(store.read(paths[0]), ARRAYS)
    assert store.read(paths[0], "seconds") == {"seconds": 1.5}


def test_keys_differ_whenever_inputs_differ():
    keys = [
        store.entry_key(content="a", span=[0.0, 60]),
        store.entry_key(content="b", span=[0.0, 60]),
        store.entry_key(content="a", span=[0.5, 60]),
        store.entry_key(content="a", length=[0.0, 60]),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == store.entry_key(span=[0.0, 60], content="a")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch, error):
    def fail(file, **arrays):
        file.write(b"half an entry")
        raise error

    path = store.entry_path(tmp_path, "log_mel", "abc")
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        store.write(path, **ARRAYS)
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
    assert files(tmp_path) == []


def test_damaged_entries_are_rejected(tmp_path):
    path = store.entry_path(tmp_path, "log_mel", "abc")
    with pytest.raises(UserError, match=r"abc\.npz cannot be read"):
        store.read(path)
    store.write(path, **ARRAYS)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole.replace(b"\x80@", b"\x81@")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="delete it and prepare"):
            store.read(path)


def test_only_abandoned_partial_files_are_removed(tmp_path):
    folder = tmp_path / "log_mel"
    folder.mkdir()
    for name, age in (("old.partial", 3600), ("new.partial", 1), ("old.npz", 3600)):
        (folder / name).write_bytes(b"")
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    assert store.remove_partial(tmp_path) == 1
    assert files(tmp_path) == ["new.partial", "old.npz"]


def test_a_truncated_entry_is_not_whole(tmp_path):
    path = store.entry_path(tmp_path, "log_mel", "abc")
    assert not store.is_whole(path)
    store.write(path, **ARRAYS)
    assert store.is_whole(path)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        assert not store.is_whole(path)


def test_features_of_another_length_are_rejected(tmp_path):
    audio = AudioConfig(sample_rate=8000, mel_bands=16, segments=4)
    jobs = []
    for name, length in (("1", 4), ("2", 6)):
        data_folders.audio(tmp_path / f"{name}.wav", 4.0)
        rating = Rating("a", np.zeros((length, 2), np.float32))
        song = Song(name, 4.0, 0.0, (rating,), f"{name}.wav")
        jobs.append(extract.make_job(song, str(tmp_path), audio, str(tmp_path / "store"), ""))
        assert not extract.extract(jobs[-1]).fault
    first, second = (store.entry_path(job.folder, "log_mel", job.log_mel) for job in jobs)
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"npz has 6 segments or windows, where song 1 has 4; del"):
        extract.load(jobs[0])
