"""Sixty spoiled inputs, of all kinds; `python -m tests.fuzz_inputs --cases=300` tries more."""

import pytest

from tests import fuzz_inputs

CASES, SEED, PARTS = 60, 0, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_spoiled_inputs_raise_one_sentence_or_account_for_all_rows(part):
    try:
        results = [fuzz_inputs.run_case(SEED, index) for index in range(part, CASES, PARTS)]
    finally:
        fuzz_inputs.remove_shared()
    failed = [f"{case}\n{failure}" for case, failure in results if failure]
    assert not failed, "\n".join(failed)
