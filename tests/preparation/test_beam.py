"""Preparation on Apache Beam's local runner, tested only if Beam is installed."""

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
    expected = preparation_of(experiment("deam", root, tmp_path / "pool"))
    beam = experiment("deam", root, tmp_path / "beam", **{"data.beam_options": LOCAL})
    prepared = preparation_of(beam)
    assert contents(tmp_path / "beam") == contents(tmp_path / "pool")
    assert set(prepared.set_aside) == set(expected.set_aside) == {"1001"}
    assert prepared.findings == expected.findings


def test_only_failed_jobs_run_again_locally(tmp_path, monkeypatch):
    """After Beam, the local process pool gets only the job of the faulty file."""
    from dsaml_jax.preparation import fill

    root = data_folders.pmemo(tmp_path / "pmemo")
    (root / "chorus" / "4.mp3").write_bytes(b"no sound")
    received, run_locally = [], fill.over_processes

    def recorded(function, jobs, processes):
        received.extend(job.song_id for job in jobs)
        return run_locally(function, jobs, processes)

    monkeypatch.setattr(fill, "over_processes", recorded)
    beam = experiment("pmemo", root, tmp_path / "prepared", **{"data.beam_options": LOCAL})
    assert [song.song_id for song in preparation_of(beam).songs] == ["1"]
    assert received == ["4"]
