"""Profiler traces of a few calls."""

import jax
import jax.numpy as jnp
import pytest

from dsaml_jax.runtime.profiling import Profiler


@pytest.mark.parametrize(("steps", "calls"), [(2, 3), (4, 3), (0, 2), (0, 0), (2, 1), (2, 0)])
def test_a_trace_is_written_if_steps_are_requested_and_left(tmp_path, steps, calls, caplog):
    """The first call compiles and is not traced: two calls are the fewest that give a trace."""
    add = jax.jit(lambda x: x + 1)
    with Profiler(tmp_path, steps) as profiler:
        x = jnp.zeros(())
        for step in range(calls):
            x = profiler(step, 1, lambda x=x: add(x))
    assert int(x) == calls
    assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (steps > 0 and calls > 1)
    nothing_left = f"nothing was left to profile in {tmp_path}: the first call only compiles"
    assert (nothing_left in caplog.text) == (steps > 0 and calls < 2)
