"""What a compiled program computes and needs, told before it is run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.commands.dry_run import dry_run, si
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.runtime.hlo_cost import program_cost
from dsaml_jax.training.stages import initial_meta_state
from tests import tiny


def text_of(function, *shapes):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*shapes).compile().as_text()


def test_matrix_products_are_counted_as_often_as_their_loop_runs():
    def power(x, start):
        return jax.lax.scan(lambda y, _: (x @ y, None), start, length=7)[0]

    work = program_cost(text_of(power, (64, 64), (64, 48)))
    assert work.matmul_flops == 7 * 2 * 64 * 64 * 48
    assert (work.unbounded_loops, work.collectives) == (0, ())
    assert work.bytes >= 7 * 4 * (64 * 64 + 2 * 64 * 48)


def test_batched_and_nested_products_are_counted():
    def nested(x, y):
        def outer(total, _):
            inner = jax.lax.scan(lambda t, _: (t + jnp.sin(x @ y), None), total, length=3)[0]
            return inner, None

        return jax.lax.scan(outer, jnp.zeros((5, 16, 16)), length=4)[0]

    work = program_cost(text_of(nested, (5, 16, 32), (5, 32, 16)))
    one = 2 * 5 * 16 * 32 * 16
    assert work.matmul_flops in (one, 12 * one)  # the compiler may lift it out of both loops
    assert work.other_flops >= 12 * 5 * 16 * 16


def test_a_loop_of_unknown_length_is_said():
    def search(x):
        return jax.lax.while_loop(lambda y: jnp.sum(y) < 100.0, lambda y: y * 2.0 + 1.0, x)

    assert program_cost(text_of(search, (8,))).unbounded_loops == 1


def test_a_dry_run_reads_no_data_and_tells_what_fits(tmp_path):
    """The data set does not exist; the meta-batch that fits is the most below the limit."""
    config = tiny.get_config()
    config.data.name, config.data.root = "deam", str(tmp_path / "nowhere")
    config.data.prepared = str(tmp_path / "prepared")
    config.inner.adapt = "predictor/output/*"
    experiment = experiment_from_config(config.to_dict())
    file = tmp_path / "deep" / "dry_run.json"
    text = dry_run(experiment, file, memory_gib=1.0)
    found = json.loads(file.read_text())
    assert list(tmp_path.iterdir()) == [file.parent]
    params = initial_meta_state(experiment).weights.params
    assert found["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert f"{found['parameters']:,} parameters" in text
    memory = found["memory"]
    most, each = memory["most_tasks_at_once_per_device"], memory["bytes_per_task_at_once"]
    needed = memory["bytes_besides"] + np.array([most, most + 1]) * each
    assert needed[0] <= memory["limit_bytes"] == 2**30 < needed[1]
    assert abs(memory["estimate_is_off_by"]) < 1e-9  # its 2 tasks are a point of the line
    assert memory["config_fits"] and found["peak_bytes_per_device"] < 2**30
    # The matrix products of two tasks: each adapts on one song, and is tested on two.
    assert found["matmul_flops_per_device"] > 0 and found["collectives"] == []


@pytest.mark.parametrize(("value", "said"), [(12, "12 "), (1234, "1.23 k"), (2.5e12, "2.5 T")])
def test_numbers_are_told_in_three_digits(value, said):
    assert si(value) == said
