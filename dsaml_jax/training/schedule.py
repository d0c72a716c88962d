"""What is due after which meta-step: a pure function of the step."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a stage validates, diagnoses its meta-gradient, and saves.

    Attributes:
      steps: meta-steps of the stage.
      validate_every: meta-steps between validations; there is one after the last step, too.
      checkpoint_every: meta-steps between checkpoints.
      diagnose_every: meta-steps between diagnoses of the meta-gradient; 0 for none.
      steps_per_call: meta-steps in one call of the compiled program where nothing is due before
        the last of them.
    """

    steps: int
    validate_every: int
    checkpoint_every: int
    diagnose_every: int = 0
    steps_per_call: int = 1

    def validates(self, step: int) -> bool:
        """Returns whether a validation is due after `step` meta-steps."""
        return step % self.validate_every == 0 or step == self.steps

    def diagnoses(self, step: int) -> bool:
        """Returns whether a diagnosis is due after `step` meta-steps."""
        return self.diagnose_every > 0 and step % self.diagnose_every == 0

    def saves(self, step: int) -> bool:
        """Returns whether a checkpoint is due after `step` meta-steps."""
        return step % self.checkpoint_every == 0

    def is_due(self, step: int) -> bool:
        """Returns whether anything is due after `step` meta-steps."""
        return self.validates(step) or self.diagnoses(step) or self.saves(step)

    def next_call(self, step: int) -> int:
        """Returns how many meta-steps the next call takes: `steps_per_call` or 1."""
        end = step + self.steps_per_call
        if end > self.steps or any(map(self.is_due, range(step + 1, end))):
            return 1
        return self.steps_per_call
