"""The annotator tasks of a meta-step."""

from __future__ import annotations

import dataclasses

from dsaml_jax.constraints import NonNegative, Positive, check_fields


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The tasks of a meta-step."""

    # Annotators in a meta-step, on all devices together.
    meta_batch: Positive
    # Songs of each annotator to adapt on.
    support: Positive
    # Songs of each annotator on which the adapted model is scored.
    query: Positive
    # Annotators that a device computes at once; the others follow, and gradients are summed. 0 for
    # all. Speed and memory only.
    tasks_per_device: NonNegative = 0
    # Meta-steps in one call of the device while nothing is due before the last of them. Signals to
    # stop are handled between calls. Speed only.
    steps_per_call: Positive = 1

    def __post_init__(self):
        check_fields(self, "tasks")
