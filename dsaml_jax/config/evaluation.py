"""What is evaluated, diagnosed and compared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any

from dsaml_jax.constraints import NonNegative, OneOf, Positive, Range, Seed, Unique, check_fields
from dsaml_jax.errors import UserError

PROTOCOLS = ("cross_song", "same_song")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How models are evaluated; during training, validation is cross-song and on first clips."""

    # The split that is evaluated: "test", or "validation", on which choices are made.
    split: Annotated[str, OneOf(("test", "validation"))] = "test"
    # One table each. "cross_song": adapt on whole songs' first clips, test on other songs.
    # "same_song": adapt on the first clip of a long song, test on the rest of that song (the
    # release's protocol on DEAM). Consensus labels ignore protocols.
    protocols: Annotated[tuple[Annotated[str, OneOf(PROTOCOLS)], ...], Unique()] = ("cross_song",)
    # Whether test songs are predicted from the first to the last rated segment, instead of on
    # their first clip alone.
    whole_songs: bool = True
    # Segments between the windows of a whole song, for (arousal, valence), as released.
    hops: tuple[Positive, Positive] = (5, 1)
    # Tasks of each annotator, with disjoint supports.
    episodes: Positive = 4
    # Songs that each task is tested on, at most.
    query: Positive = 15
    # Numbers of support songs for which the gain of adapting is measured, over annotators who rated
    # more songs than the largest; () for none. Personal labels and cross-song only.
    songs_curve: Annotated[tuple[Positive, ...], Unique()] = ()
    # Tasks computed at once. Memory only.
    chunk: Positive = 4
    # Bootstrap resamples of the confidence intervals.
    resamples: Annotated[int, Range(low=1, high=1_000_000)] = 10_000
    # Listeners whose curves are drawn.
    figures: NonNegative = 4

    def __post_init__(self):
        check_fields(self, "evaluation")
        if not self.protocols:
            raise UserError(f"evaluation.protocols is empty; give some of {', '.join(PROTOCOLS)}.")
        if "same_song" in self.protocols and not self.whole_songs:
            raise UserError(
                "evaluation.protocols has same_song, which tests on the rest of a song; set "
                "evaluation.whole_songs to True."
            )


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig:
    """Diagnoses of the meta-gradient."""

    # Meta-steps between diagnoses during training; 0 for none.
    every: NonNegative = 0
    # Meta-batches that --mode=study averages over.
    batches: Positive = 4
    # Lanczos iterations for the extreme eigenvalues of the support loss's Hessian.
    iterations: Annotated[int, Range(low=2)] = 10

    def __post_init__(self):
        check_fields(self, "diagnostics")


_VARIANT_NAME = re.compile(r"[\w(+=][\w ().,:+=-]{0,99}")
"""Names of variants become names of folders."""


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """What --mode=compare runs."""

    # {name: changes to the experiment}, such as {"exact": {"inner": {"steps": 3}}}.
    variants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Seeds of each variant's runs.
    seeds: Annotated[tuple[Seed, ...], Unique()] = (0,)
    # Numbers of inner steps for which time and memory are measured.
    cost_steps: Annotated[tuple[Positive, ...], Unique()] = ()

    def __post_init__(self):
        check_fields(self, "comparison")
        for name in self.variants:
            if not _VARIANT_NAME.fullmatch(name) or len(name.encode()) > 200:
                raise UserError(
                    f"comparison.variants has the name {name[:120]!r}; expected 1 to 100 letters, "
                    "digits, blanks, or any of ().,:+=-, because folders are named after variants."
                )
