"""What each departure of the demo from the paper is worth, on validation listeners, over seeds.

    python launch.py --config=configs/ablation.py --mode=compare --workdir=runs/ablation

`all` is the demo; the others take one departure back, and `paper` all of them.
"""

from typing import Any

from configs import demo
from configs.base import estimator

GRADIENT_STEPS = {
    "steps": 5,
    "direction": "gradient",
    "proximal": 0.0,
    "rates": "per_tensor_and_step",
    "rates_learning_rate": 0.04,
    "estimator": estimator("second_order"),
}
"""The paper's inner loop, for inner losses that one Newton step does not minimize."""


def get_config() -> Any:
    """Returns the ablation of the demo."""
    config = demo.get_config()
    config.evaluation.split = "validation"
    config.evaluation.songs_curve = ()
    config.evaluation.figures = 0
    config.comparison.seeds = (0, 1, 2)
    # Without the listeners' stage the population model learns from fresh weights, for as long.
    no_stage = {
        "listeners": {"steps": 0},
        "population": {
            "steps": 300,
            "validate_every": 50,
            "optimizer": {"options": {"learning_rate": 1e-3}},
        },
        "meta_from_population": True,
    }
    head = {**GRADIENT_STEPS, "adapt": "predictor/output/*"}
    slow = {"optimizer": {"options": {"learning_rate": 0.05}}}
    config.comparison.variants = {
        "all": {},
        "no decision": {
            "model": {"decision": False},
            "meta": {"train": "predictor/output, predictor/context, likelihood"},
        },
        "no descriptors": {"audio": {"embedding": "statistics"}},
        "no listeners stage": no_stage,
        "score inside": {
            "model": {"support_loss": "score"},
            "inner": GRADIENT_STEPS,
            "meta": {"train": "predictor/output, predictor/context, decision"},
        },
        "whole head": {"inner": head | slow},
        "paper": {
            **no_stage,
            "audio": {"embedding": "statistics"},
            "model": {
                "support_loss": "score",
                "decision": False,
                "context_dim": 0,
                "basis_scale": 1.0,
            },
            "inner": head | slow,
            "meta": {
                "train": "everything",
                "steps": 100,
                "optimizer": {"options": {"learning_rate": 3e-5}},
            },
        },
    }
    return config
