"""Sixty spoiled inputs of every kind; `python -m tests.fuzz_inputs --cases=300` tries more."""

import pytest

from tests import fuzz_inputs

CASES, SEED, PARTS = 60, 0, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_spoiled_inputs_are_one_sentence_or_balance(part):
    try:
        ran = [fuzz_inputs.run_case(SEED, index) for index in range(part, CASES, PARTS)]
    finally:
        fuzz_inputs.remove_shared()
    failed = [f"{case}\n{failure}" for case, failure in ran if failure]
    assert not failed, "\n".join(failed)
