"""`study_meta_gradients` with all weights adapted, in large steps, and ANIL beside it."""

from configs import study_meta_gradients


def get_config():
    config = study_meta_gradients.get_config()
    config.inner.steps = 4
    config.inner.adapt = "all"
    config.inner.optimizer.options.learning_rate = 0.01
    del config.comparison.variants
    config.comparison.variants = {
        "first order": {"estimator": "first_order"},
        "exact": {"estimator": "second_order", "engine": "mixed"},
        "truncated": {"estimator": "truncated", "last_steps": 2, "engine": "mixed"},
        "annealed": {"estimator": "annealed", "anneal_at": 0.5, "engine": "mixed"},
        "reptile": {"estimator": "reptile"},
        "implicit": {"estimator": "implicit", "proximal": 1.0, "solver_steps": 5},
        "exact, head": {"estimator": "second_order", "adapt": "head"},
        "exact, rates": {"estimator": "second_order", "engine": "mixed", "rates": "per_tensor"},
    }
    return config
