"""A folder for numba where nothing else can be written."""

import os
import stat

import pytest

from dsaml_jax.audio.numba_cache import VARIABLE, ensure_folder


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A path that nobody can make a folder of, not even root; also the user's home and cache."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, "")  # restored afterwards
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    return tmp_path / "file" / "librosa"


def test_a_private_folder_is_used_where_nothing_else_can_be_written(refused):
    ensure_folder(refused)
    folder = os.environ[VARIABLE]
    assert os.listdir(folder) == []
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


@pytest.mark.parametrize("writable", ["package", "home", "given"])
def test_a_folder_that_can_be_written_is_left_to_numba(refused, tmp_path, monkeypatch, writable):
    given = str(tmp_path / "given") if writable == "given" else ""
    monkeypatch.setenv(VARIABLE, given)
    if writable == "home":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HOME", str(tmp_path))
    ensure_folder(tmp_path / "librosa" if writable == "package" else refused)
    assert os.environ[VARIABLE] == given
