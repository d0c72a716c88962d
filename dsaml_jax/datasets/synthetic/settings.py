"""The settings of the embedded data set: everything that its songs and ratings depend on."""

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
    """Everything that the songs and ratings depend on.

    Attributes:
      seed: of all that is random.
      train_songs, validation_songs, test_songs: songs of each split; no song is in two.
      train_annotators, validation_annotators, test_annotators: likewise.
      minimum_songs: every annotator rates at least so many songs.
      activity_exponent: an annotator rates minimum_songs * u^(-1 / exponent) songs of the split,
        u uniform, and never more than there are: a Pareto law. 1.5 gives 11 to 15 ratings a song
        (DEAM: about 10), half of the annotators below 8 songs and one or two with everything.
      duration_s: length of every song in seconds.
      ratings_start_s: time of the first rating; the ratings run to the end of the song.
      sample_rate: of the sound, in Hz, 8000 or more.
      spread: how listeners differ.
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
            raise UserError(f"synthetic data: seed is {self.seed}, but must be 0 or more.")
        for name in ("minimum_songs", "activity_exponent"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"synthetic data: {name} is {getattr(self, name)}, but must be above 0."
                )
        if self.sample_rate < 8000:
            raise UserError(
                f"synthetic data: sample_rate is {self.sample_rate}, but must be 8000 Hz or more "
                "to hold the highest notes."
            )
        for split in SPLITS:
            songs, annotators = (
                getattr(self, f"{split}_{what}") for what in ("songs", "annotators")
            )
            if songs < self.minimum_songs:
                raise UserError(
                    f"synthetic data: {split}_songs is {songs}, but every annotator rates "
                    f"minimum_songs = {self.minimum_songs}; raise the one or lower the other."
                )
            if annotators < 1:
                raise UserError(
                    f"synthetic data: {split}_annotators is {annotators}, but must be 1 or more."
                )
        if self.ratings_start_s < 0 or self.ratings < 1:
            raise UserError(
                f"synthetic data: ratings_start_s is {self.ratings_start_s}, but must be at least "
                f"0 and half a second before the end, duration_s = {self.duration_s}."
            )

    @property
    def ratings(self) -> int:
        """Ratings in a curve: whole half seconds from the start of rating to the end."""
        return int(np.floor((self.duration_s - self.ratings_start_s) * schema.RATING_HZ + 1e-6))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ where any field differs."""
        fields = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(fields.encode()).hexdigest()[:8]
