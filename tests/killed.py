"""The tiny experiment with more steps and checkpoints, for `kill_training` to interrupt."""

from typing import Any

from tests import tiny


def get_config() -> Any:
    """Returns the tiny experiment with more steps."""
    config = tiny.get_config()
    config.diagnostics.every = 0
    config.inner.adapt = "predictor/output/*"
    for stage in (config.population, config.meta):
        stage.steps = 40
        stage.validate_every = 10
        stage.checkpoint_every = 4
    return config
