"""bfloat16 computation keeps weights, inner updates, statistics, losses and sums in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.config.experiment import TaskConfig
from dsaml_jax.data.tasks import Draw
from dsaml_jax.meta import adapt
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.training.state import initial_state
from dsaml_jax.training.step import draw_step, gather_task, make_meta_step
from tests.device_runs import EMBEDDING, IMAGE, OUTER, inner_of, model_of, random_tables

KEY = jax.random.key(3)
TASKS = TaskConfig(meta_batch=2, support=1, query=2, tasks_per_device=0)


@pytest.fixture(scope="module")
def runs():
    """Returns {compute dtype: results of a meta-step and an inner loop on the same tasks}."""
    results = {}
    tables = jax.tree.map(jnp.asarray, random_tables("float32"))
    for dtype in ("float32", "bfloat16"):
        model = dataclasses.replace(model_of("float32"), dtype=dtype, dropout=0.0)
        inner = dataclasses.replace(inner_of("second_order"), rates="fixed")
        start = initial_state(model, inner.loop(), OUTER, KEY, IMAGE, EMBEDDING)
        draw, _ = draw_step(TASKS, tables, KEY, 0)
        task = gather_task(Draw(*(x[0] for x in draw)), tables, start.weights.batch_stats)
        problem = dsaml_problem(model, train=True)
        adapted = adapt(problem, inner.loop(), start.weights.meta_params, task.support, KEY)
        step = make_meta_step(model, TASKS, inner, OUTER, 1)
        text = step.lower(start, tables, KEY).as_text()
        before = jax.tree.map(np.asarray, start)
        after, metrics = step(start, tables, KEY)
        results[dtype] = {
            "adapted": adapted,
            "before": before,
            "after": after,
            "loss": float(metrics.scalars["loss"]),
            "scalars": metrics.scalars,
            "products": {"bf16" in line for line in text.splitlines() if "dot_general" in line},
        }
    return results


def test_weights_and_metrics_stay_float32(runs):
    half = runs["bfloat16"]
    assert True in half["products"] and runs["float32"]["products"] == {False}
    for part in ("adapted", "after", "scalars"):
        dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(half[part])}
        assert dtypes <= {"float32", "int32"}, part


def test_bfloat16_results_are_close_to_float32(runs):
    full, half = runs["float32"], runs["bfloat16"]
    assert half["loss"] != full["loss"]
    assert abs(half["loss"] - full["loss"]) < 0.02
    # The adapted weights differ by rounding of the updates, not of the weights.
    moves = [
        np.concatenate(
            [
                np.ravel(np.asarray(a) - b)
                for a, b in zip(
                    jax.tree.leaves(run["adapted"].params),
                    jax.tree.leaves(run["before"].weights.params),
                    strict=True,
                )
            ]
        )
        for run in (full, half)
    ]
    assert np.linalg.norm(moves[1] - moves[0]) < 0.25 * np.linalg.norm(moves[0])
    cosine = moves[0] @ moves[1] / np.prod([np.linalg.norm(move) for move in moves])
    assert cosine > 0.99
