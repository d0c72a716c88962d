"""The process pool: ordered results, and a one-sentence error if a process dies."""

import os

import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.pool import over_processes


def test_a_single_process_runs_jobs_lazily_in_this_process():
    taken = []
    jobs = (taken.append(i) or i for i in range(9))
    results = over_processes(lambda i: (i, os.getpid()), jobs, 1)
    assert next(results) == (0, os.getpid()) and taken == [0]
    assert [i for i, _ in results] == list(range(1, 9))


def test_a_process_that_dies_is_reported():
    results = over_processes(os._exit, iter([1, 2, 3]), 2)
    with pytest.raises(
        UserError, match=r"a process of the preparation died.*finished work is kept"
    ):
        next(results)
