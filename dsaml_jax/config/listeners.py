"""The listeners' stage of training."""

from __future__ import annotations

import dataclasses

from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.config.stage import StageConfig
from dsaml_jax.constraints import NonNegative, NonNegativeFloat, Positive, PositiveFloat


@dataclasses.dataclass(frozen=True)
class ListenersConfig(StageConfig):
    """The listeners' stage, `training.listeners`; by default it is skipped, as in the paper."""

    steps: NonNegative = 0
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            "adamw", {"learning_rate": 3e-3, "b2": 0.99, "weight_decay": 1e-2}
        )
    )
    train: str = "all"
    # Songs of a step, on all devices together, each with all its raters; at most all songs.
    songs: Positive = 32
    # Songs that a device computes at once. Speed and memory only. 0 for all.
    songs_at_once: NonNegative = 0
    # Step after which listeners are inferred for the first time; before, all are alike.
    infer_from: NonNegative = 60
    # Steps between inferences.
    infer_every: Positive = 10
    # Inferences from the best state, after the last step.
    infer_last: NonNegative = 20
    # Initial standard deviation of a listener's weights around everybody's.
    prior_sd: PositiveFloat = 0.1
    # Standard deviations of noise added to a clip: of one offset for each value of the (scaled)
    # embedding, and for each mel band of the log power in nepers.
    embedding_noise: NonNegativeFloat = 0.0
    log_mel_noise: NonNegativeFloat = 0.0
