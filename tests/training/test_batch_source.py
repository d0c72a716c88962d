"""Training is the same with songs on the device or host.

`test_devices` covers several steps per call.
"""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from configs.base import estimator
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import TaskConfig, experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.training.batch_source import Stream, open_batch_source
from dsaml_jax.training.devices import task_mesh
from dsaml_jax.training.stages import train
from dsaml_jax.training.step import draw_meta_batch, songs_of_step
from tests import tiny
from tests.device_runs import SONGS, random_tables

KEY = jax.random.key(5)
TABLES = random_tables("float32")
HOST = jax.tree.map(jax.numpy.asarray, TABLES)._replace(
    log_mel=TABLES.log_mel, embedding=TABLES.embedding
)
TASKS = TaskConfig(meta_batch=3, support=1, query=2, tasks_per_device=0)
SONGS_OF_STEP = functools.partial(songs_of_step, TASKS)


@pytest.mark.parametrize("count", [1, 2])
def test_streamed_tables_give_the_same_tasks(count):
    with contextlib.closing(Stream(HOST, SONGS_OF_STEP, KEY, task_mesh())) as stream:
        for first in (0, count, 7):  # the last one was not prefetched
            streamed = stream(first, count)
            assert len(streamed.log_mel) == len(streamed.embedding) == min(SONGS, count * 3 * 3)
            for step in range(first, first + count):
                ours, keys = draw_meta_batch(TASKS, {}, streamed, KEY, step)
                whole, their_keys = draw_meta_batch(TASKS, {}, HOST, KEY, step)
                jax.tree.map(np.testing.assert_array_equal, ours, whole)
                np.testing.assert_array_equal(*map(jax.random.key_data, (keys, their_keys)))


def test_only_drawn_songs_are_transferred():
    """At most nine songs are transferred of 1012, the last 1000 of which have no ratings."""

    def more(array):
        return np.concatenate([array, np.full((1000, *array.shape[1:]), np.nan, array.dtype)])

    many = HOST._replace(log_mel=more(HOST.log_mel), embedding=more(HOST.embedding))
    with open_batch_source(many, SONGS_OF_STEP, KEY, task_mesh()) as batch_source:
        streamed = batch_source(0, 1)
    assert len(streamed.log_mel) == len(streamed.embedding) == 9
    assert np.isfinite(streamed.log_mel).all() and np.isfinite(streamed.embedding).all()


def test_songs_on_the_device_are_placed_once():
    tables = jax.tree.map(jax.numpy.asarray, TABLES)
    assert tables.on_device and not HOST.on_device
    with open_batch_source(tables, SONGS_OF_STEP, KEY, task_mesh()) as batch_source:
        assert batch_source(0, 1) is batch_source(5, 2)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Returns {variant: (trained weights, metrics.jsonl)} of the tiny experiment."""
    folder = tmp_path_factory.mktemp("feed")
    config = tiny.get_config()
    config.data.prepared = str(folder / "prepared")
    config.diagnostics.every = 0
    config.inner.estimator = estimator("first_order")
    config.inner.adapt = "predictor/output/*"
    logs = {}
    for variant, changes in {
        "on the device": {},
        "streamed": {"data.on_device": False},
    }.items():
        with config.unlocked():
            changed = config.copy_and_resolve_references()
            changed.update_from_flattened_dict(changes)
        experiment = experiment_from_config(changed.to_dict())
        workdir = open_workdir(folder / variant, experiment, fresh=True)
        trained = train(experiment, load_corpora(experiment), workdir)
        logs[variant] = trained, (workdir / "metrics.jsonl").read_text()
    return logs


def test_streaming_gives_identical_results(logged):
    (trained, log), (streamed, streamed_log) = logged["on the device"], logged["streamed"]
    assert streamed_log == log
    assert streamed.validation == trained.validation
    for ours, theirs in ((streamed.population, trained.population), (streamed.meta, trained.meta)):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_less_than_one_step_per_call_is_rejected():
    with pytest.raises(UserError, match=r"^tasks\.steps_per_call is 0; expected at least 1"):
        dataclasses.replace(TASKS, steps_per_call=0)


def test_on_device_false_keeps_songs_on_the_host(tmp_path):
    config = tiny.get_config()
    config.data.prepared = str(tmp_path)
    config.data.on_device = False
    corpora = load_corpora(experiment_from_config(config.to_dict()))
    for corpus in corpora.values():
        assert isinstance(corpus.tables.log_mel, np.ndarray)
        assert isinstance(corpus.tables.embedding, np.ndarray)
        assert isinstance(corpus.tables.curve, jax.Array)
