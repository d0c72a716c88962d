"""The meta-step broadcasts nothing by accident and moves nothing between host and device."""

import jax
import numpy as np

from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.training.devices import replicate, task_mesh
from dsaml_jax.training.step import make_meta_step
from tests import device_runs


def test_no_implicit_rank_promotion_and_no_implicit_transfer():
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
    state, tables, key = arguments
    with jax.numpy_rank_promotion("raise"):
        compiled = step.lower(state, tables, key).compile()
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, _ = compiled(state, tables, key)
    assert int(state.step) == 2
