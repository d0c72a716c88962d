"""The benchmarks follow the code that they time."""

import math

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
