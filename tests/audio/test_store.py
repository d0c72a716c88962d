"""The feature store: entries are complete or absent, and addressed by their inputs."""

import os

import numpy as np
import pytest

from dsaml_jax.audio import store
from dsaml_jax.errors import UserError

ARRAYS = {"log_mel": np.arange(12, dtype=np.float32).reshape(3, 4), "seconds": np.float64(1.5)}


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read_and_its_bytes_are_the_same_each_time(tmp_path):
    paths = [store.entry_path(tmp_path / name, "log_mel", "abc") for name in ("one", "two")]
    for path in paths:
        store.write(path, **ARRAYS)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert files(tmp_path) == ["abc.npz", "abc.npz"]
    np.testing.assert_equal(store.read(paths[0]), ARRAYS)
    assert store.read(paths[0], "seconds") == {"seconds": 1.5}


def test_a_key_tells_apart_whatever_differs():
    keys = [
        store.entry_key(content="a", span=[0.0, 60]),
        store.entry_key(content="b", span=[0.0, 60]),
        store.entry_key(content="a", span=[0.5, 60]),
        store.entry_key(content="a", length=[0.0, 60]),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == store.entry_key(span=[0.0, 60], content="a")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, error):
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


def test_a_damaged_entry_is_told(tmp_path):
    path = store.entry_path(tmp_path, "log_mel", "abc")
    with pytest.raises(UserError, match=r"abc\.npz cannot be read"):
        store.read(path)
    store.write(path, **ARRAYS)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole.replace(b"\x80@", b"\x81@")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="delete it and prepare"):
            store.read(path)


def test_only_what_was_abandoned_is_removed(tmp_path):
    folder = tmp_path / "log_mel"
    folder.mkdir()
    for name, age in (("old.partial", 3600), ("new.partial", 1), ("old.npz", 3600)):
        (folder / name).write_bytes(b"")
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    assert store.remove_partial(tmp_path) == 1
    assert files(tmp_path) == ["new.partial", "old.npz"]
