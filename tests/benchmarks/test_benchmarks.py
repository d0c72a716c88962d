"""The benchmarks time the package's own training step."""

import math

from benchmarks import gpu
from benchmarks.meta_step import Timed
from benchmarks.problem import Problem


def test_the_timed_step_is_the_training_step():
    sizes = dict(dim=8, heads=2, layers=1, feed_forward=8, lstm_dim=4, predictor_dim=4)
    problem = Problem(
        **sizes, tasks=2, inner_steps=1, queries=2, segments=4, frames=6, bands=8, dropout=0.0
    )
    timed = Timed(problem)
    draw = timed.next_draw()
    seconds, metrics = timed.step()
    assert draw.shape == (2, 3) and len(set(draw.ravel().tolist())) == 6
    assert seconds > 0 and math.isfinite(metrics["loss"]) and metrics["gradient_norm"] > 0
    assert (timed.next_draw() != draw).any()


def test_gpu_measurements_without_time_are_listed_as_skipped():
    commands = gpu.plan(gpu.PAPER, repeats=1, adapter_clips=16)
    reports = []
    results = gpu.run(commands, minutes=0.0, report=lambda partial: reports.append(len(partial)))
    assert list(results) == list(commands) and reports == list(range(1, len(commands) + 1))
    assert results["first_order_float32"]["error"].startswith("skipped: the 0 minutes")


def test_gpu_ratios_are_of_the_measurements_that_succeeded():
    results = {
        "first_order_float32": {"seconds": 2.0},
        "torch_first_order_float32": {"seconds": 80.0},
        "second_order_float32": {"error": "out of memory"},
    }
    assert gpu.ratios(results) == {"torch_over_first_order_float32": 40.0}
