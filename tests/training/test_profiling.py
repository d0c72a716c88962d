"""Traces of meta-steps, and the names that their parts carry."""

import jax
import jax.numpy as jnp
import pytest

from dsaml_jax.runtime.profiling import Profiler
from tests import device_runs


@pytest.mark.parametrize(("steps", "calls"), [(2, 3), (4, 3), (0, 2)])
def test_the_trace_holds_the_asked_steps_and_skips_the_first_call(tmp_path, steps, calls):
    add = jax.jit(lambda x: x + 1)
    with Profiler(tmp_path, steps) as profiler:
        x = jnp.zeros(())
        for step in range(calls):
            x = profiler(step, 1, lambda x=x: add(x))
    assert int(x) == calls
    assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (steps > 0)


def test_the_parts_of_a_meta_step_carry_their_names():
    text = device_runs.program("float32", "second_order", 1, 0)[0].as_text()
    for name in ("adapter", "transformer", "predictor", "inner_step", "outer_update"):
        assert name in text, name
