"""One experiment: everything that a run depends on, checked and frozen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from dsaml_jax.audio.config import WEIGHTLESS, AudioConfig
from dsaml_jax.config.data import DataConfig
from dsaml_jax.config.evaluation import ComparisonConfig, DiagnosticsConfig, EvaluationConfig
from dsaml_jax.config.freeze import freeze, replace
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.config.listeners import ListenersConfig
from dsaml_jax.config.stage import StageConfig
from dsaml_jax.config.tasks import TaskConfig
from dsaml_jax.constraints import Seed, check_fields
from dsaml_jax.datasets.ratings import check_rating_period
from dsaml_jax.errors import UserError
from dsaml_jax.model.config import DSAMLConfig

__all__ = [
    "Experiment",
    "StageConfig",
    "TaskConfig",
    "experiment_from_config",
    "fixed_config",
    "resolved_config",
]

MAY_CHANGE = {
    "data": ("root", "prepared", "processes", "beam_options", "on_device"),
    "listeners": ("checkpoint_every", "skip_at_most"),
    "population": ("checkpoint_every", "skip_at_most"),
    "meta": ("checkpoint_every", "skip_at_most"),
    "evaluation": ("figures", "songs_curve", "split"),
}
"""Fields that may change when a run resumes; none affects the weights. The data may move but must
stay the same: checkpoints hold their fingerprint."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run depends on; `configs/base.py` states the released values."""

    tasks: TaskConfig
    inner: InnerConfig
    # Training of the population model, the baseline that does not adapt (K = 0).
    population: StageConfig
    # Meta-learning.
    meta: StageConfig
    # Whether meta-learning starts from the population model, instead of where that starts.
    meta_from_population: bool = False
    # Training on all listeners of a song at once, from which both other stages start.
    listeners: ListenersConfig = dataclasses.field(default_factory=ListenersConfig)
    # Of weights, tasks, dropout, episodes and bootstrap.
    seed: Seed = 0
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    model: DSAMLConfig = dataclasses.field(default_factory=DSAMLConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    diagnostics: DiagnosticsConfig = dataclasses.field(default_factory=DiagnosticsConfig)
    comparison: ComparisonConfig = dataclasses.field(default_factory=ComparisonConfig)

    def __post_init__(self):
        check_fields(self, "")
        if self.audio.embedding not in WEIGHTLESS and not self.data.embedding_weights:
            raise UserError(
                f"audio.embedding is {self.audio.embedding!r}, but data.embedding_weights is "
                "empty; give the path of imagebind_huge.pth (CC BY-NC 4.0: no commercial use), or "
                f"choose audio.embedding={' or '.join(map(repr, WEIGHTLESS))}, which needs none."
            )
        check_rating_period(self.audio)
        for hop in self.evaluation.hops:
            if hop > self.audio.segments:
                raise UserError(
                    f"evaluation.hops has {hop}; expected at most audio.segments = "
                    f"{self.audio.segments}."
                )
        if self.data.labels == "consensus" and self.tasks.meta_batch != 1:
            raise UserError(
                f"tasks.meta_batch is {self.tasks.meta_batch}; with data.labels = consensus there "
                "is one annotator, everyone: expected 1, and the batch size as tasks.query."
            )

    def variants(self) -> dict[str, Experiment]:
        """Returns the variants of the experiment that a comparison runs, by name.

        Raises:
          UserError: a variant changes an unknown field or contradicts itself.
        """
        made = {}
        for name, changes in self.comparison.variants.items():
            path = f"comparison.variants.{name}"
            try:
                made[name] = replace(self, changes, path)
            except UserError as error:
                sentence = str(error)
                known = sentence.startswith(path)
                raise UserError(sentence if known else f"{path}: {sentence}") from error
        return made


def experiment_from_config(config: Mapping[str, Any]) -> Experiment:
    """Checks a mapping, as of `ConfigDict.to_dict`, and freezes it.

    Raises:
      UserError: a field is unknown, missing or of the wrong type, or a value makes no sense.
    """
    try:
        experiment = freeze(Experiment, config)
    except RecursionError as error:
        raise UserError("config: a field contains itself; expected plain values.") from error
    experiment.variants()  # checks them
    return experiment


def resolved_config(experiment: Experiment) -> dict[str, Any]:
    """Returns every field, as JSON holds it."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def fixed_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a resolved config without the fields that may change when a run resumes."""
    return {
        name: {k: v for k, v in value.items() if k not in MAY_CHANGE.get(name, ())}
        if isinstance(value, dict)
        else value
        for name, value in resolved.items()
    }
