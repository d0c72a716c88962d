"""`study_meta_gradients` with all weights adapted in large steps, and ANIL for comparison."""

from typing import Any

from configs import study_meta_gradients
from configs.base import engine, estimator


def get_config() -> Any:
    """Returns the comparison with all weights adapted."""
    config = study_meta_gradients.get_config()
    config.inner.steps = 4
    config.inner.adapt = "all"
    config.inner.optimizer.options.learning_rate = 0.01
    mixed = engine("mixed")
    config.comparison.variants = {
        "first order": {"estimator": estimator("first_order")},
        "exact": {"estimator": estimator("second_order", engine=mixed)},
        "truncated": {"estimator": estimator("truncated", last_steps=2, engine=mixed)},
        "annealed": {"estimator": estimator("annealed", anneal_at=0.5, engine=mixed)},
        "reptile": {"estimator": estimator("reptile")},
        "implicit": {"estimator": estimator("implicit", proximal=1.0, solver_steps=5)},
        "exact, head": {"estimator": estimator("second_order"), "adapt": "head"},
        "exact, rates": {
            "estimator": estimator("second_order", engine=mixed),
            "rates": "per_tensor",
        },
    }
    return config
