"""The settings of the simulated data set, which determine its songs and ratings."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np

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

    seed: int = 0
    train_songs: int = 96
    validation_songs: int = 24
    test_songs: int = 36
    train_annotators: int = 96
    validation_annotators: int = 24
    test_annotators: int = 40
    minimum_songs: int = 5
    activity_exponent: float = 1.5
    duration_s: float = 33.0
    ratings_start_s: float = 2.0
    sample_rate: int = 16_000
    spread: ListenerSpread = dataclasses.field(default_factory=ListenerSpread)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"data.builder: seed is {self.seed}; expected 0 or more.")
        for name in ("minimum_songs", "activity_exponent"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"data.builder: {name} is {getattr(self, name)}; expected more than 0."
                )
        if self.sample_rate < 8000:
            raise UserError(
                f"data.builder: sample_rate is {self.sample_rate} Hz; expected at least 8000 Hz, "
                "so that the highest notes can be represented."
            )
        for split in SPLITS:
            songs, annotators = (
                getattr(self, f"{split}_{what}") for what in ("songs", "annotators")
            )
            if songs < self.minimum_songs:
                raise UserError(
                    f"data.builder: {split}_songs is {songs}, but each annotator rates "
                    f"minimum_songs = {self.minimum_songs}; raise the former or lower the latter."
                )
            if annotators < 1:
                raise UserError(
                    f"data.builder: {split}_annotators is {annotators}; expected 1 or more."
                )
        if self.ratings_start_s < 0 or self.ratings < 1:
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
