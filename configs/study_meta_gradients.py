"""All meta-gradients on simulated data, over seeds, as a table, a CSV and a figure.

    python launch.py --config=configs/study_meta_gradients.py --mode=compare

Sizes are those of `configs/demo_paper.py`, whose inner loop is the variant `exact, rates`.
`config.comparison` sets the variants and seeds; `configs/study_all_weights.py` adapts all weights,
`configs/study_small.py` is smaller.
"""

from typing import Any

from configs import demo_paper
from configs.base import estimator


def get_config() -> Any:
    """Returns the comparison of meta-gradients."""
    config = demo_paper.get_config()
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.diagnostics.every = 25
    config.comparison.seeds = (0, 1)
    config.comparison.cost_steps = (1, 2, 4, 8, 16)
    config.comparison.variants = {
        "first order": dict(inner=dict(estimator=estimator("first_order"))),
        "exact": dict(inner=dict(estimator=estimator("second_order"))),
        "truncated": dict(inner=dict(estimator=estimator("truncated", last_steps=2))),
        "annealed": dict(inner=dict(estimator=estimator("annealed", anneal_at=0.5))),
        "reptile": dict(inner=dict(estimator=estimator("reptile"))),
        "implicit": dict(inner=dict(estimator=estimator("implicit", proximal=1.0, solver_steps=5))),
        "exact, rates": dict(inner=dict(rates="per_tensor_and_step", rates_learning_rate=0.04)),
    }
    return config
