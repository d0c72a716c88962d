"""Workdirs with damaged files, with other versions, or removed while a run writes there."""

import json
import shutil

import pytest

from dsaml_jax.commands.workdir import lock_workdir, open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.errors import UserError
from dsaml_jax.training.metric_writer import MetricWriter, merged_rows
from tests import tiny

EXPERIMENT = experiment_from_config(tiny.get_config().to_dict())


@pytest.fixture
def workdir(tmp_path):
    return open_workdir(tmp_path / "run", EXPERIMENT, fresh=True)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"3", b'"x"', b'{"seed"', b"\xff\xfe", b"[" * 100_000]
)
def test_a_config_that_is_not_an_object_is_rejected(workdir, content):
    (workdir / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is damaged \("):
        open_workdir(workdir, EXPERIMENT, fresh=True)


def test_a_config_that_is_a_folder_is_rejected(workdir):
    (workdir / "config.json").unlink()
    (workdir / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json is damaged \(it is not a file\)"):
        open_workdir(workdir, EXPERIMENT, fresh=True)


@pytest.mark.parametrize("value", [None, [], 3, "x"])
def test_a_part_of_the_config_that_is_not_an_object_is_named(workdir, value):
    path = workdir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"meta": value}))
    with pytest.raises(UserError, match=r"another experiment \(meta was"):
        open_workdir(workdir, EXPERIMENT, fresh=True)


def test_other_versions_are_reported(workdir, caplog):
    open_workdir(workdir, EXPERIMENT, fresh=True)
    assert "other versions" not in caplog.text
    path = workdir / "versions.json"
    other = {"jax": "0.4.1", "flax": "0.1", "orbax-checkpoint": "0.2", "device_kind": "TPU v4"}
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    with lock_workdir(workdir, EXPERIMENT, fresh=False):
        pass
    (line,) = [r.getMessage() for r in caplog.records if "other versions" in r.getMessage()]
    for name, version in other.items():
        assert f"{name} was {version!r}, is " in line


@pytest.mark.parametrize("content", [None, b"null", b"\xff"])
def test_unknown_versions_are_reported(workdir, content, caplog):
    path = workdir / "versions.json"
    path.unlink() if content is None else path.write_bytes(content)
    open_workdir(workdir, EXPERIMENT, fresh=True)
    assert "versions.json cannot be read" in caplog.text


def test_removing_a_workdir_ends_its_run_with_one_sentence(workdir):
    removed = pytest.raises(UserError, match="run was removed while the run was writing there")
    with removed, lock_workdir(workdir, EXPERIMENT, fresh=False):
        shutil.rmtree(workdir)
        (workdir / "figures" / "x.png").write_bytes(b"")
    open_workdir(workdir, EXPERIMENT, fresh=True)
    removed = pytest.raises(UserError, match="run was removed while the run was writing there")
    with (
        removed,
        lock_workdir(workdir, EXPERIMENT, fresh=False),
        MetricWriter(workdir) as writer,
    ):
        shutil.rmtree(workdir)
        writer.write("meta", 1, {"a": 1.0})


FIRST, SECOND = b'{"stage": "meta", "step": 1, "a": 1.0}', b'{"stage": "meta", "step": 2, "a": 2.0}'


@pytest.mark.parametrize(
    ("content", "damaged"),
    [
        (FIRST + b"\n\n \n" + SECOND + b"\n", 0),
        (FIRST + b"\n" + SECOND, 0),  # its end is missing, nothing else
        (FIRST + b'\n{"stage": "meta", "st' + SECOND + b"\n", 1),  # both halves on one line
        (FIRST + b"\n" + b"\0" * 40 + SECOND + b"\n", 1),
        (FIRST + b"\n" + b"\0" * 40 + b"\n" + SECOND + b"\n", 1),
        (FIRST + b"\n\xff\xfe\n" + SECOND + b"\n", 1),
        (FIRST + b"\n[1]\nnull\n3\n{}\n" + SECOND + b"\n", 4),
        (FIRST + b'\n{"stage": "meta", "step": "2"}\n' + SECOND + b"\n", 1),
        (FIRST + b'\n{"stage": "meta", "step": 2, "train/loss": "x"}\n' + SECOND + b"\n", 1),
        (FIRST + b"\n" + b"[" * 100_000 + b"\n" + SECOND + b"\n", 1),
        (FIRST + b"\n" + SECOND + b'\n{"stage": "me', 0),  # torn at the end: it runs again
    ],
)
def test_no_row_of_a_damaged_log_is_lost(tmp_path, content, damaged, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with MetricWriter(tmp_path) as writer:
        writer.write("meta", 3, {"a": 3.0})
        rows = writer.read("meta")
    assert [(row["step"], row["a"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert (f"{damaged} lines are damaged" in caplog.text) == (damaged > 0)


def test_a_missing_log_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read \(No such file"):
        merged_rows(tmp_path / "metrics.jsonl", "meta")


def test_a_name_that_is_not_utf_8_is_rejected(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8; choose another --workdir"):
        open_workdir(tmp_path / "caf\udce9", EXPERIMENT, fresh=True)
