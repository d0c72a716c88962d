"""Dry runs: a compiled program's operations and memory, reported without running it."""

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


def test_matrix_products_are_multiplied_by_their_loop_count():
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


def test_loops_of_unknown_length_are_counted():
    def search(x):
        return jax.lax.while_loop(lambda y: jnp.sum(y) < 100.0, lambda y: y * 2.0 + 1.0, x)

    assert program_cost(text_of(search, (8,))).unbounded_loops == 1


def test_a_dry_run_reads_no_data_and_reports_the_largest_meta_batch(tmp_path):
    """The data set does not exist; the reported meta-batch is the largest below the limit."""
    config = tiny.get_config()
    config.data.name, config.data.root = "deam", str(tmp_path / "nowhere")
    config.data.prepared = str(tmp_path / "prepared")
    config.inner.adapt = "predictor/output/*"
    experiment = experiment_from_config(config.to_dict())
    file = tmp_path / "deep" / "dry_run.json"
    text = dry_run(experiment, file, memory_gib=1.0)
    report = json.loads(file.read_text())
    assert list(tmp_path.iterdir()) == [file.parent]
    params = initial_meta_state(experiment).weights.params
    assert report["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert f"{report['parameters']:,} parameters" in text
    memory = report["memory"]
    most, each = memory["most_tasks_at_once_per_device"], memory["bytes_per_task_at_once"]
    needed = memory["bytes_besides"] + np.array([most, most + 1]) * each
    assert needed[0] <= memory["limit_bytes"] == 2**30 < needed[1]
    assert abs(memory["estimate_is_off_by"]) < 1e-9  # its 2 tasks are a point of the line
    assert memory["config_fits"] and report["peak_bytes_per_device"] < 2**30
    # The matrix products of two tasks: each adapts to one song and is tested on two.
    assert report["matmul_flops_per_device"] > 0 and report["collectives"] == []


@pytest.mark.parametrize(("value", "text"), [(12, "12 "), (1234, "1.23 k"), (2.5e12, "2.5 T")])
def test_si_rounds_to_three_digits(value, text):
    assert si(value) == text


def test_asynchronous_and_library_kernels_of_a_gpu_are_counted():
    """As XLA writes them for an H200: an update in place counts once, cuBLAS's workspace not."""
    text = """
%update (p.0: f32[9,4,8], p.1: s32[], p.2: f32[4,8]) -> f32[9,4,8] {
  %p.0 = f32[9,4,8]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %p.2 = f32[4,8]{1,0} parameter(2)
  %one = f32[1,4,8]{2,1,0} bitcast(%p.2)
  %zero = s32[] constant(0)
  ROOT %updated = f32[9,4,8]{2,1,0} dynamic-update-slice(%p.0, %one, %p.1, %zero, %zero)
}

ENTRY %main (a: f32[9,4,8], i: s32[], x: f32[4,8], w: f32[8,8]) -> f32[9,4,8] {
  %a = f32[9,4,8]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[4,8]{1,0} parameter(2)
  %w = f32[8,8]{1,0} parameter(3)
  %product = (f32[4,8]{1,0}, s8[33554432]{0}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul", backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}
  %y = f32[4,8]{1,0} get-tuple-element(%product), index=0
  %start = ((f32[9,4,8]{2,1,0}, s32[], f32[4,8]{1,0}), f32[9,4,8]{2,1,0}, u32[]) fusion-start(%a, %i, %y), kind=kLoop, calls=%update
  ROOT %done = f32[9,4,8]{2,1,0} fusion-done(%start)
}
"""  # noqa: E501
    work = program_cost(text)
    product, update = 4 * (32 + 64 + 32), 4 * (1 + 32 + 32)
    assert (work.matmul_flops, work.bytes) == (2 * 4 * 8 * 8, product + update)
