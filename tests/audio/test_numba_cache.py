"""The choice of a cache folder for numba."""

import os
import stat

import pytest

from dsaml_jax.audio.numba_cache import VARIABLE, ensure_folder


@pytest.fixture
def unwritable(tmp_path, monkeypatch):
    """Returns a path that not even root can make a folder of; neither are home and user cache."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, "")  # restored afterwards
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    return tmp_path / "file" / "librosa"


def test_a_private_folder_is_used_where_nothing_else_is_writable(unwritable):
    ensure_folder(unwritable)
    folder = os.environ[VARIABLE]
    assert os.listdir(folder) == []
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


@pytest.mark.parametrize("writable", ["package", "home", "configured"])
def test_a_writable_folder_is_left_to_numba(unwritable, tmp_path, monkeypatch, writable):
    configured = str(tmp_path / "configured") if writable == "configured" else ""
    monkeypatch.setenv(VARIABLE, configured)
    if writable == "home":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HOME", str(tmp_path))
    ensure_folder(tmp_path / "librosa" if writable == "package" else unwritable)
    assert os.environ[VARIABLE] == configured
