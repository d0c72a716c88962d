"""One experiment: the config that a user writes, checked and frozen."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

import optax

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.config.inner import InnerConfig, outer_optimizer
from dsaml_jax.config.optimizers import OptimizerConfig
from dsaml_jax.datasets.filters import RatingFilter
from dsaml_jax.datasets.schema import DIMENSIONS
from dsaml_jax.datasets.splits import SplitRules
from dsaml_jax.errors import UserError, at_least, one_of
from dsaml_jax.model.config import DSAMLConfig

DATASETS = ("synthetic", "deam", "pmemo", "merp", "vgmidi")
LABELS = ("personal", "consensus")
PROTOCOLS = ("cross_song", "same_song")

DECAYS = ("constant", "cosine")
"""The outer rate stays as it is, or falls to 0 along half a cosine (Loshchilov & Hutter 2017)."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which songs and ratings.

    Attributes:
      name: one of `DATASETS`.
      root: the folder that holds the data set, in its own layout; "" for the synthetic one.
      prepared: folder for prepared data and features; may be shared by experiments.
      strict: every fault of the data set is an error, instead of being noted and passed over.
      filters: which ratings are good enough; of real data sets only.
      labels: "personal", each annotator's ratings, for annotator tasks; or "consensus", the ratings
        of everyone averaged, for one model that is the same for all (supervised training).
      split: how songs and annotators are split where the data set does not say it itself.
      min_songs: annotators with fewer songs in a split are left out of it; of personal labels.
      validation_min_songs: the same of the validation split, which is a small part of training.
      builder: fields of the data set's reader or, of the synthetic one, of its settings.
      embedding_weights: file of ImageBind's weights, `imagebind_huge.pth` or what
        `convert_imagebind` made of it; needed where `audio.embedding` is one of ImageBind's.
      processes: of preparation; 0 for one a core, 1 for none but this one.
      beam_options: of an Apache Beam pipeline, to prepare on it; () for processes here.
    """

    name: str
    root: str
    prepared: str
    strict: bool
    filters: RatingFilter
    labels: str
    split: SplitRules
    min_songs: int
    validation_min_songs: int
    builder: Mapping[str, Any]
    embedding_weights: str
    processes: int
    beam_options: tuple[str, ...]
    on_device: bool

    def __post_init__(self):
        one_of("data.name", self.name, DATASETS)
        one_of("data.labels", self.labels, LABELS)
        at_least("data.min_songs", self.min_songs, 1)
        at_least("data.processes", self.processes, 0)
        for name in ("least_deviation", "more_songs_than"):
            at_least(f"data.filters.{name}", getattr(self.filters, name), 0)
        at_least("data.filters.span", self.filters.span, 1)
        if self.name != "synthetic" and not self.root:
            raise UserError(
                f"data.root is missing; give the folder that holds {self.name}: "
                "--config.data.root=DIR."
            )
        at_least("data.validation_min_songs", self.validation_min_songs, 1)


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Which tasks a meta-step takes.

    Attributes:
      meta_batch: annotators a meta-step, on all devices together.
      support, query: songs of each.
      tasks_per_device: annotators a device computes at once; its others come after them, and the sum of
        their gradients is kept. 0 for all. Speed and memory only.
      steps_per_call: meta-steps that the device takes by itself, where nothing is due before the
        last of them; a signal to stop is heard between calls. Speed only.
    """

    meta_batch: int
    support: int
    query: int
    tasks_per_device: int
    steps_per_call: int = 1

    def __post_init__(self):
        for name in ("meta_batch", "support", "query"):
            at_least(f"tasks.{name}", getattr(self, name), 1)
        at_least("tasks.at_once", self.tasks_per_device, 0)
        at_least("tasks.steps_per_call", self.steps_per_call, 1)


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of training: the population model, or meta-learning.

    Attributes:
      steps: meta-steps; 0 leaves the stage out.
      optimizer: the outer optimizer.
      clip_norm: global norm to which meta-gradients are clipped before it; 0 for no clipping.
      decay: how the optimizer's step shrinks over the stage, one of `DECAYS`.
      validate_every: meta-steps between validations; the best one is kept.
      checkpoint_every: meta-steps between checkpoints; there is one after each validation anyhow.
      skip_at_most: meta-steps that may be skipped, in the whole stage, because their loss or
        gradient is not finite; one more ends the run, so that with 0 the first does.
    """

    steps: int
    optimizer: OptimizerConfig
    clip_norm: float
    decay: str
    validate_every: int
    checkpoint_every: int
    skip_at_most: int

    def build_optimizer(self, inner: InnerConfig) -> optax.GradientTransformation:
        """The outer optimizer of the weights and the learned inner rates."""
        built = outer_optimizer(self.optimizer, self.clip_norm, inner)
        if self.decay == "constant":
            return built
        decay = optax.cosine_decay_schedule(1.0, max(self.steps, 1))
        return optax.chain(built, optax.scale_by_schedule(decay))

    def __post_init__(self):
        at_least("steps", self.steps, 0)
        at_least("validate_every", self.validate_every, 1)
        at_least("checkpoint_every", self.checkpoint_every, 1)
        at_least("skip_at_most", self.skip_at_most, 0)
        at_least("clip_norm", self.clip_norm, 0)
        one_of("decay", self.decay, DECAYS)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How the test split is evaluated; validation is always cross-song, of first clips.

    Attributes:
      protocols: of `PROTOCOLS`, each giving a table. "cross_song": adapted on whole songs' first
        clips, tested on other songs. "same_song": adapted on the first clip of a long song, tested
        on the rest of that song (the release's for DEAM). Consensus labels know no protocol.
      whole_songs: test songs are predicted from the first rated segment to the last, instead of
        their first clip alone.
      hops: segments between the windows of a whole song, for (arousal, valence).
      episodes: tasks of each annotator (disjoint supports).
      query: songs that each is tested on, at most.
      chunk: tasks computed at once; memory only.
      resamples: of the bootstrap.
      figures: listeners to draw.
    """

    protocols: tuple[str, ...]
    whole_songs: bool
    hops: tuple[int, ...]
    episodes: int
    query: int
    chunk: int
    resamples: int
    figures: int

    def __post_init__(self):
        if not self.protocols:
            raise UserError(f"evaluation.protocols is empty; give some of {', '.join(PROTOCOLS)}.")
        for name in self.protocols:
            one_of("evaluation.protocols", name, PROTOCOLS)
        if "same_song" in self.protocols and not self.whole_songs:
            raise UserError(
                "evaluation.protocols has same_song, which tests on the rest of a song; set "
                "evaluation.whole_songs."
            )
        if len(self.hops) != len(DIMENSIONS):
            raise UserError(
                f"evaluation.hops is {self.hops}; expected one number for each of "
                f"{', '.join(DIMENSIONS)}."
            )
        for hop in self.hops:
            at_least("evaluation.hops", hop, 1)
        for name in ("episodes", "query", "chunk", "resamples"):
            at_least(f"evaluation.{name}", getattr(self, name), 1)
        at_least("evaluation.figures", self.figures, 0)


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig:
    """Attributes:
    every: meta-steps between diagnoses of the meta-gradient during training; 0 for none.
    batches: meta-batches that --mode=study averages over.
    iterations: of Lanczos, for the extreme eigenvalues of the support loss's Hessian.
    """

    every: int
    batches: int
    iterations: int

    def __post_init__(self):
        at_least("diagnostics.every", self.every, 0)
        at_least("diagnostics.batches", self.batches, 1)
        at_least("diagnostics.iterations", self.iterations, 2)


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """What --mode=compare runs.

    Attributes:
      variants: {name: changes to `inner`}.
      seeds: of each variant's runs.
      cost_steps: numbers of inner steps for which time and memory are measured.
    """

    variants: Mapping[str, Any]
    seeds: tuple[int, ...]
    cost_steps: tuple[int, ...]

    def __post_init__(self):
        for steps in self.cost_steps:
            at_least("comparison.cost_steps", steps, 1)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run depends on; `configs/base.py` has the released values.

    Attributes:
      seed: of weights, tasks, dropout, episodes and bootstrap.
      population: training of the population model, the baseline that does not adapt (K = 0).
      meta: meta-learning; starts from the population model where `meta_from_population`.
    """

    seed: int
    data: DataConfig
    audio: AudioConfig
    model: DSAMLConfig
    tasks: TaskConfig
    inner: InnerConfig
    population: StageConfig
    meta: StageConfig
    meta_from_population: bool
    evaluation: EvaluationConfig
    diagnostics: DiagnosticsConfig
    comparison: ComparisonConfig

    def __post_init__(self):
        if self.audio.embedding != "statistics" and not self.data.embedding_weights:
            raise UserError(
                f"audio.embedding is {self.audio.embedding!r}, but data.embedding_weights is "
                "empty; give the path of imagebind_huge.pth (CC BY-NC 4.0: no commercial use), or "
                "choose audio.embedding='statistics', which needs no weights."
            )
        for hop in self.evaluation.hops:
            if hop > self.audio.segments:
                raise UserError(
                    f"evaluation.hops has {hop}; expected at most audio.segments = "
                    f"{self.audio.segments}."
                )
        if self.data.labels == "consensus" and self.tasks.meta_batch != 1:
            raise UserError(
                f"tasks.meta_batch is {self.tasks.meta_batch}; with data.labels = consensus there "
                "is one annotator, everyone: expected 1, and the batch as tasks.query."
            )


def experiment_from_config(config: Mapping[str, Any]) -> Experiment:
    """Checks a (Config)dict and freezes it.

    Raises:
      UserError: a field is unknown, missing or of the wrong type, or a value makes no sense.
    """
    return _freeze(Experiment, config, "config")


def _freeze(cls: type, values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f"{path} is {values!r}; expected the fields of {cls.__name__}.")
    types = typing.get_type_hints(cls)
    for name in values:
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{path} has no field {name!r}{hint}")
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; start from configs/base.py.")
    return cls(
        **{name: _convert(types[name], value, f"{path}.{name}") for name, value in values.items()}
    )


def _convert(expected: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(expected):
        return _freeze(expected, value, path)
    origin = typing.get_origin(expected) or expected
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if origin is Mapping and isinstance(value, Mapping):
        return {name: value[name] for name in value}
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, origin) and (expected is bool or not isinstance(value, bool)):
        return value
    name = getattr(expected, "__name__", str(expected))
    raise UserError(f"{path} is {value!r}; expected {name}.")
