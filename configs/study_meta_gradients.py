"""All meta-gradients on the demo, over seeds: --mode=compare writes comparison.md, .csv and .png.

    python launch.py --config=configs/study_meta_gradients.py --mode=compare

The demo adapts its last layer; `exact, rates` is the demo itself. `config.comparison` sets the
variants and seeds; `configs/study_all_weights.py` adapts all weights, `configs/study_small.py` is
smaller.
"""

from typing import Any

from configs import demo
from configs.base import estimator


def get_config() -> Any:
    """Returns the comparison of meta-gradients on the demo."""
    config = demo.get_config()
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.diagnostics.every = 25
    config.comparison.seeds = (0, 1)
    config.comparison.cost_steps = (1, 2, 4, 8, 16)
    config.comparison.variants = {
        "first order": {"estimator": estimator("first_order")},
        "exact": {"estimator": estimator("second_order")},
        "truncated": {"estimator": estimator("truncated", last_steps=2)},
        "annealed": {"estimator": estimator("annealed", anneal_at=0.5)},
        "reptile": {"estimator": estimator("reptile")},
        "implicit": {"estimator": estimator("implicit", proximal=1.0, solver_steps=5)},
        "exact, rates": {"rates": "per_tensor_and_step", "rates_learning_rate": 0.04},
    }
    return config
