"""The settings of the simulated data set, which determine its songs and ratings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Annotated

import numpy as np

from dsaml_jax.constraints import NonNegativeFloat, Positive, Range, check_fields
from dsaml_jax.datasets import schema
from dsaml_jax.datasets.synthetic.listeners import ListenerSpread
from dsaml_jax.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class SyntheticSettings:
    """Settings that determine all songs and ratings.

    Attributes:
      seed: Seed of all randomness.
      train_songs: Number of training songs; splits share no songs.
      validation_songs: Number of validation songs.
      test_songs: Number of test songs.
      train_annotators: Number of training annotators; splits share no annotators.
      validation_annotators: Number of validation annotators.
      test_annotators: Number of test annotators.
      minimum_songs: Minimum number of songs that each annotator rates.
      activity_exponent: An annotator rates minimum_songs * u^(-1 / exponent) songs of the split, u
        uniform, capped at the number of songs: a Pareto law. With 1.5, songs have 11 to 15 ratings
        (DEAM: about 10), half of the annotators rate fewer than 8 songs, and one or two rate all.
      duration_s: Length of each song in seconds.
      ratings_start_s: Time of the first rating; ratings continue to the end of the song.
      sample_rate: Sample rate in Hz, at least 8000.
      spread: How listeners differ.
    """

    seed: Annotated[int, Range(low=0, high=2**63 - 1)] = 0
    train_songs: Positive = 96
    validation_songs: Positive = 24
    test_songs: Positive = 36
    train_annotators: Positive = 96
    validation_annotators: Positive = 24
    test_annotators: Positive = 40
    minimum_songs: Positive = 5
    activity_exponent: Annotated[float, Range(low=0.01)] = 1.5
    duration_s: Annotated[float, Range(above=0, high=3600)] = 33.0
    ratings_start_s: NonNegativeFloat = 2.0
    sample_rate: Annotated[int, Range(low=8000, high=192_000)] = 16_000
    spread: ListenerSpread = dataclasses.field(default_factory=ListenerSpread)

    def __post_init__(self) -> None:
        check_fields(self, "data.builder")
        for split in SPLITS:
            songs = getattr(self, f"{split}_songs")
            if songs < self.minimum_songs:
                raise UserError(
                    f"data.builder: {split}_songs is {songs}, but each annotator rates "
                    f"minimum_songs = {self.minimum_songs}; raise the former or lower the latter."
                )
        if self.ratings < 1:
            raise UserError(
                f"data.builder: ratings_start_s is {self.ratings_start_s}; expected at least 0 and "
                f"at most half a second less than duration_s = {self.duration_s}."
            )

    @property
    def ratings(self) -> int:
        """Number of ratings in a curve: whole half seconds from the start of rating to the end."""
        return int(np.floor((self.duration_s - self.ratings_start_s) * schema.RATING_HZ + 1e-6))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ if any field differs."""
        fields = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(fields.encode()).hexdigest()[:8]
