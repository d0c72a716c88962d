"""The compiled meta-step: no implicit broadcasts or transfers, and named scopes for profiles."""

import jax
import numpy as np
import pytest

from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.training.devices import replicate, task_mesh
from dsaml_jax.training.step import make_meta_step
from tests import device_runs


@pytest.fixture(scope="module")
def compiled():
    """Returns (the meta-step, its arguments), compiled where implicit broadcasts are errors."""
    mesh = task_mesh(jax.devices()[:1])
    sizes = TaskConfig(meta_batch=2, support=1, query=2, tasks_per_device=0)
    step = make_meta_step(
        device_runs.model_of("float32"),
        sizes,
        device_runs.inner_of("second_order"),
        device_runs.OUTER,
        2,
        mesh,
    )
    arguments = replicate(
        (
            # A copy: the step donates its state, and other tests share this one.
            jax.tree.map(np.asarray, device_runs.initial_of("float32", "second_order")),
            device_runs.random_tables("float32"),
            jax.random.key(0),
        ),
        mesh,
    )
    with jax.numpy_rank_promotion("raise"):
        return step.lower(*arguments).compile(), arguments


def test_a_meta_step_has_no_implicit_rank_promotion_or_transfer(compiled):
    program, (state, tables, key) = compiled
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, _ = program(state, tables, key)
    assert int(state.step) == 2


def test_the_parts_of_a_meta_step_have_named_scopes(compiled):
    text = compiled[0].as_text()
    for name in ("adapter", "transformer", "predictor", "inner_step", "outer_update"):
        assert name in text, name
