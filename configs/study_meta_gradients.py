"""Every meta-gradient on the demo, over seeds: --mode=compare writes comparison.md, .csv and .png.

    python launch.py --config=configs/study_meta_gradients.py --mode=compare

The demo adapts its last layer; `exact, rates` is the demo itself. `config.comparison` says how much
is run; `configs/study_all_weights.py` adapts all weights, `configs/study_small.py` is smaller.
"""

from configs import demo


def get_config():
    config = demo.get_config()
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.diagnostics.every = 25
    config.comparison.seeds = (0, 1)
    config.comparison.cost_steps = (1, 2, 4, 8, 16)
    config.comparison.variants = {
        "first order": {"estimator": "first_order"},
        "exact": {"estimator": "second_order"},
        "truncated": {"estimator": "truncated", "last_steps": 2},
        "annealed": {"estimator": "annealed", "anneal_at": 0.5},
        "reptile": {"estimator": "reptile"},
        "implicit": {"estimator": "implicit", "proximal": 1.0, "solver_steps": 5},
        "exact, rates": {"rates": "per_tensor_and_step", "rates_learning_rate": 0.04},
    }
    return config
