"""Songs on the device or in host memory, one meta-step a call or several: the same training."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from dsaml_jax.commands.train import train
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import TaskConfig, experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.training.batch_source import Stream, open_batch_source
from dsaml_jax.training.devices import task_mesh
from dsaml_jax.training.step import draw_meta_batch
from tests import tiny
from tests.device_runs import SONGS, random_tables

KEY = jax.random.key(5)
TABLES = random_tables("float32")
HOST = jax.tree.map(jax.numpy.asarray, TABLES)._replace(
    log_mel=TABLES.log_mel, embedding=TABLES.embedding
)
TASKS = TaskConfig(meta_batch=3, support=1, query=2, tasks_per_device=0)


@pytest.mark.parametrize("count", [1, 2])
def test_streamed_tables_serve_the_same_tasks(count):
    with contextlib.closing(Stream(HOST, TASKS, KEY, task_mesh())) as stream:
        for first in (0, count, 7):  # the last is not what was sent ahead
            few = stream(first, count)
            assert len(few.log_mel) == len(few.embedding) == min(SONGS, count * 3 * 3)
            for step in range(first, first + count):
                ours, keys = draw_meta_batch(TASKS, {}, few, KEY, step)
                whole, their_keys = draw_meta_batch(TASKS, {}, HOST, KEY, step)
                jax.tree.map(np.testing.assert_array_equal, ours, whole)
                np.testing.assert_array_equal(*map(jax.random.key_data, (keys, their_keys)))


def test_songs_that_nobody_drew_are_not_sent():
    """Of 1012 songs, the last 1000 of which nobody has rated, never more than nine are sent."""

    def more(array):
        return np.concatenate([array, np.full((1000, *array.shape[1:]), np.nan, array.dtype)])

    many = HOST._replace(log_mel=more(HOST.log_mel), embedding=more(HOST.embedding))
    with open_batch_source(many, TASKS, KEY, task_mesh()) as batch_source:
        few = batch_source(0, 1)
    assert len(few.log_mel) == len(few.embedding) == 9
    assert np.isfinite(few.log_mel).all() and np.isfinite(few.embedding).all()


def test_songs_on_the_device_are_placed_once():
    tables = jax.tree.map(jax.numpy.asarray, TABLES)
    assert tables.on_device and not HOST.on_device
    with open_batch_source(tables, TASKS, KEY, task_mesh()) as batch_source:
        assert batch_source(0, 1) is batch_source(5, 2)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """{how: (results, metrics.jsonl)} of the tiny experiment; two meta-steps a call where asked."""
    folder = tmp_path_factory.mktemp("feed")
    config = tiny.get_config()
    config.data.prepared = str(folder / "prepared")
    config.diagnostics.every = 4
    config.inner.adapt = "predictor/output/*"
    found = {}
    for how, changes in {
        "on the device": {},
        "streamed": {"data.on_device": False},
        "streamed, in twos": {"data.on_device": False, "tasks.steps_per_call": 2},
    }.items():
        with config.unlocked():
            changed = config.copy_and_resolve_references()
            changed.update_from_flattened_dict(changes)
        experiment = experiment_from_config(changed.to_dict())
        workdir = open_workdir(folder / how, experiment, fresh=True)
        results = train(experiment, workdir)
        found[how] = results, (workdir / "metrics.jsonl").read_text()
    return found


def test_streaming_changes_not_a_bit(logged):
    (results, log), (streamed, streamed_log) = logged["on the device"], logged["streamed"]
    assert streamed_log == log
    for name, each in results.items():
        assert dataclasses.asdict(streamed[name]) == dataclasses.asdict(each)


def test_two_meta_steps_a_call_are_the_same_two(logged):
    log, twos = logged["streamed"][1], logged["streamed, in twos"][1]
    assert numbers(twos) == pytest.approx(numbers(log), rel=1e-4, abs=1e-5)


def numbers(log):
    rows = map(json.loads, log.splitlines())
    return {
        (row["stage"], row["step"], name): value
        for row in rows
        for name, value in row.items()
        if name.startswith(("train/", "validation/"))
    }


def test_less_than_one_step_a_call_is_refused():
    with pytest.raises(UserError, match=r"^tasks\.steps_per_call is 0; expected at least 1"):
        dataclasses.replace(TASKS, steps_per_call=0)


def test_a_corpus_leaves_its_songs_on_the_host_where_asked(tmp_path):
    config = tiny.get_config()
    config.data.prepared = str(tmp_path)
    config.data.on_device = False
    corpora = load_corpora(experiment_from_config(config.to_dict()))
    for corpus in corpora.values():
        assert isinstance(corpus.tables.log_mel, np.ndarray)
        assert isinstance(corpus.tables.embedding, np.ndarray)
        assert isinstance(corpus.tables.curve, jax.Array)
