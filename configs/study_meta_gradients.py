"""Every meta-gradient on the demo, over seeds: --mode=compare writes comparison.md, .csv and .png.

    python launch.py --config=configs/study_meta_gradients.py --mode=compare

`config.comparison` says how much is run; `configs/study_small.py` is smaller.
"""

from configs import demo


def get_config():
    config = demo.get_config()
    config.inner.steps = 4
    config.inner.adapt = "all"
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.inner.estimator = "second_order"
    config.inner.optimizer.options.learning_rate = 0.01
    config.diagnostics.every = 25
    config.comparison.seeds = (0, 1)
    config.comparison.cost_steps = (1, 2, 4, 8, 16)
    implicit = {"estimator": "implicit", "proximal": 1.0, "solver_steps": 5}
    config.comparison.variants = {
        "first order": {"estimator": "first_order"},
        "exact": {"estimator": "second_order", "engine": "mixed"},
        "truncated": {"estimator": "truncated", "last_steps": 2, "engine": "mixed"},
        "annealed": {"estimator": "annealed", "switch": 0.5, "engine": "mixed"},
        "reptile": {"estimator": "reptile"},
        "implicit": implicit,
        "exact, head": {"estimator": "second_order", "adapt": "head"},
        "exact, rates": {"estimator": "second_order", "engine": "mixed", "rates": "per_tensor"},
    }
    return config
