"""Which songs and ratings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from dsaml_jax.constraints import NonNegative, OneOf, Positive, check_fields
from dsaml_jax.datasets.filters import RatingFilter
from dsaml_jax.datasets.splits import SplitRules
from dsaml_jax.errors import UserError, at_least
from dsaml_jax.runtime.files import is_utf8

DATASETS = ("synthetic", "deam", "pmemo", "merp", "vgmidi")
LABELS = ("personal", "consensus")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set, and what of it is used."""

    # One of `DATASETS`; "synthetic" is simulated and needs no files.
    name: Annotated[str, OneOf(DATASETS)] = "synthetic"
    # Folder that holds the data set, in its own layout; "" for the synthetic one.
    root: str = ""
    # Folder for prepared data and features; experiments may share it.
    prepared: str = "data/prepared"
    # Whether every fault of the data set is an error, instead of being reported and skipped.
    strict: bool = False
    # Which ratings are good enough; applies to real data sets only.
    filters: RatingFilter = dataclasses.field(default_factory=RatingFilter)
    # "personal": each annotator's ratings, for annotator tasks. "consensus": the average of all
    # ratings, for one model that is the same for all (supervised training).
    labels: Annotated[str, OneOf(LABELS)] = "personal"
    # How songs and annotators are split where the data set does not define a split.
    split: SplitRules = dataclasses.field(default_factory=SplitRules)
    # Annotators with fewer songs in a split are left out of it (personal labels only). 16 lets the
    # released tasks take 1 support and 15 query songs.
    min_songs: Positive = 16
    # The same for the validation split, which is a small part of the training songs.
    validation_min_songs: Positive = 2
    # Options of the data set's reader; for "synthetic", fields of its settings.
    builder: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # File of ImageBind's weights: `imagebind_huge.pth`, or the output of `convert_imagebind`.
    # Needed where audio.embedding is one of ImageBind's.
    embedding_weights: str = ""
    # Processes that prepare the data: 0 for one per core, 1 for this process alone.
    processes: NonNegative = 0
    # Options of an Apache Beam pipeline to prepare the data on; () for local processes.
    beam_options: tuple[str, ...] = ()
    # Whether the features of all songs are kept on the device. Speed and memory only.
    on_device: bool = True

    def __post_init__(self):
        check_fields(self, "data")
        if not is_utf8(self.prepared):
            raise UserError(
                f"data.prepared is {self.prepared!r}, which is not UTF-8; choose another folder."
            )
        for name in ("least_deviation", "more_songs_than"):
            at_least(f"data.filters.{name}", getattr(self.filters, name), 0)
        at_least("data.filters.span", self.filters.span, 1)
        if self.name != "synthetic" and not self.root:
            raise UserError(
                f"data.root is missing; give the folder that holds {self.name}: "
                "--config.data.root=DIR."
            )
