"""The feature store: entries are complete or absent, and keyed by their inputs."""

import os

import numpy as np
import pytest

from dsaml_jax.audio import store
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.datasets.schema import Rating, Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.extract import extract
from dsaml_jax.preparation.job import make_job
from dsaml_jax.preparation.stored import load
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
    np.testing.assert_equal(store.read(paths[0], *ARRAYS), ARRAYS)
    assert store.read(paths[0], "seconds") == {"seconds": 1.5}


def test_an_array_in_parts_is_stored_as_a_whole_one(tmp_path):
    paths = [store.entry_path(tmp_path / name, "log_mel", "abc") for name in ("one", "two")]
    store.write(paths[0], **ARRAYS)
    with store.writing(paths[1]) as entry:
        entry.add_parts("log_mel", (3, 4), (ARRAYS["log_mel"][i : i + 2] for i in (0, 2)))
        entry.add("seconds", ARRAYS["seconds"])
    assert paths[0].read_bytes() == paths[1].read_bytes()


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
    def fail(file, *arguments, **options):
        file.write(b"half an entry")
        raise error

    path = store.entry_path(tmp_path, "log_mel", "abc")
    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        store.write(path, **ARRAYS)
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
    assert files(tmp_path) == []


def test_damaged_entries_are_rejected(tmp_path):
    path = store.entry_path(tmp_path, "log_mel", "abc")
    with pytest.raises(UserError, match=r"abc\.npz cannot be read"):
        store.read(path, "log_mel")
    store.write(path, **ARRAYS)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole.replace(b"\x80@", b"\x81@")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="delete it and prepare"):
            store.read(path, *ARRAYS)


def test_only_abandoned_partial_files_are_removed(tmp_path):
    folder = tmp_path / "log_mel"
    folder.mkdir()
    for name, age in (("old.partial", 3600), ("new.partial", 1), ("old.npz", 3600)):
        (folder / name).write_bytes(b"")
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    assert store.remove_partial(tmp_path) == 1
    assert files(tmp_path) == ["new.partial", "old.npz"]


def test_a_truncated_or_damaged_entry_is_not_whole(tmp_path):
    path = store.entry_path(tmp_path, "log_mel", "abc")
    assert not store.is_whole(path)
    store.write(path, **ARRAYS)
    assert store.is_whole(path)
    whole = path.read_bytes()
    version = whole.index(b"PK\1\2") + 6  # of ZIP, needed to read the first array
    unreadable = whole[:version] + b"\xff" + whole[version + 1 :]
    for content in (whole[:-1], whole[: len(whole) // 2], b"", unreadable):
        path.write_bytes(content)
        assert not store.is_whole(path)


def jobs_of(folder, lengths):
    audio = AudioConfig(sample_rate=8000, mel_bands=16, segments=4)
    for name, length in lengths.items():
        data_folders.audio(folder / f"{name}.wav", 4.0)
        rating = Rating("a", np.zeros((length, 2), np.float32))
        song = Song(name, 4.0, 0.0, (rating,), f"{name}.wav")
        job = make_job(song, str(folder), audio, str(folder / "store"), "")
        assert not extract(job).fault
        yield job, [job.log_mel_path, job.embedding_path]


def test_features_of_another_length_are_rejected(tmp_path):
    ((job, (path, _)),) = jobs_of(tmp_path, {"1": 4})
    store.write(path, log_mel=np.zeros((6, *job.audio.image), np.float32))
    with pytest.raises(UserError, match=r"npz has 6 segments or windows, where song 1 has 4; del"):
        load(job)


@pytest.mark.parametrize("kind", [0, 1])
def test_an_entry_under_the_name_of_another_is_rejected(tmp_path, kind):
    (job, paths), (_, others) = jobs_of(tmp_path, {"1": 5, "2": 6})
    paths[kind].write_bytes(others[kind].read_bytes())
    with pytest.raises(UserError, match=f"is the entry '{others[kind].stem}' under another name"):
        load(job)
