"""What is due after which meta-step."""

from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.training.schedule import Schedule

every = st.integers(1, 12)


@given(st.integers(0, 60), every, every, st.integers(0, 12), st.integers(1, 10))
def test_calls_end_at_whatever_is_due_and_cover_every_step_once(
    steps, validate, checkpoint, diagnose, per_call
):
    schedule = Schedule(steps, validate, checkpoint, diagnose, per_call)
    step, calls = 0, []
    while step < steps:
        calls.append(schedule.next_call(step))
        assert calls[-1] in (1, per_call)
        assert not any(map(schedule.is_due, range(step + 1, step + calls[-1])))
        step += calls[-1]
    assert step == steps and schedule.validates(steps)


def test_nothing_is_diagnosed_without_a_period():
    schedule = Schedule(10, 4, 3)
    assert [step for step in range(11) if schedule.diagnoses(step)] == []
    assert [step for step in range(11) if schedule.validates(step)] == [0, 4, 8, 10]
    assert [step for step in range(11) if schedule.saves(step)] == [0, 3, 6, 9]
