"""Preparation on Apache Beam's local runner gives the same store; run where Beam is installed."""

import pytest

from tests import data_folders
from tests.preparation.test_preparation import entries, experiment, preparation_of

pytest.importorskip("apache_beam")

LOCAL = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",)


def contents(folder):
    return {name: content for name, (content, _) in entries(folder).items()}


def test_the_local_runner_fills_the_same_store(tmp_path):
    root = data_folders.deam(tmp_path / "deam")
    (root / "DEAM_audio" / "MEMD_audio" / "1001.mp3").write_bytes(b"no sound")
    here = preparation_of(experiment("deam", root, tmp_path / "here"))
    beam = experiment("deam", root, tmp_path / "beam", **{"data.beam_options": LOCAL})
    there = preparation_of(beam)
    assert contents(tmp_path / "beam") == contents(tmp_path / "here")
    assert set(there.set_aside) == set(here.set_aside) == {"1001"}
    assert there.findings == here.findings


def test_beam_did_the_work(tmp_path, monkeypatch):
    """With nothing left to do here, the local path is given no job but the one at fault."""
    from dsaml_jax.preparation import fill

    root = data_folders.pmemo(tmp_path / "pmemo")
    (root / "chorus" / "4.mp3").write_bytes(b"no sound")
    given, run_here = [], fill.over_processes

    def noted(function, jobs, processes):
        given.extend(job.song_id for job in jobs)
        return run_here(function, jobs, processes)

    monkeypatch.setattr(fill, "over_processes", noted)
    beam = experiment("pmemo", root, tmp_path / "prepared", **{"data.beam_options": LOCAL})
    assert [song.song_id for song in preparation_of(beam).songs] == ["1"]
    assert given == ["4"]
