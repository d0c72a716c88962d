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
        "first order": dict(inner=dict(estimator=estimator("first_order"))),
        "exact": dict(inner=dict(estimator=estimator("second_order", engine=mixed))),
        "truncated": dict(inner=dict(estimator=estimator("truncated", last_steps=2, engine=mixed))),
        "annealed": dict(inner=dict(estimator=estimator("annealed", anneal_at=0.5, engine=mixed))),
        "reptile": dict(inner=dict(estimator=estimator("reptile"))),
        "implicit": dict(inner=dict(estimator=estimator("implicit", proximal=1.0, solver_steps=5))),
        "exact, head": dict(inner=dict(estimator=estimator("second_order"), adapt="head")),
        "exact, rates": dict(
            inner=dict(estimator=estimator("second_order", engine=mixed), rates="per_tensor")
        ),
    }
    return config
