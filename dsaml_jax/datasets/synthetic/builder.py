"""The embedded data set: simulated songs and listeners as a TFDS builder, without TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from dsaml_jax.datasets import schema
from dsaml_jax.datasets.synthetic import listeners, music
from dsaml_jax.errors import UserError

SPLITS = ("train", "validation", "test")
_SONG, _ANNOTATOR, _RATING = range(3)  # what a random stream belongs to


@dataclasses.dataclass(frozen=True)
class SyntheticSettings:
    """Everything that the songs and ratings depend on.

    Attributes:
      seed: of all that is random.
      train_songs, validation_songs, test_songs: songs of each split; no song is in two.
      train_annotators, validation_annotators, test_annotators: likewise.
      minimum_songs: every annotator rates at least so many songs.
      activity_exponent: an annotator rates minimum_songs * u^(-1 / exponent) songs of the split,
        u uniform, and never more than there are: a Pareto law. 1.5 gives about the mean of DEAM,
        ten ratings a song, with a few annotators who rate everything.
      duration_s: length of every song in seconds.
      ratings_start_s: time of the first rating; the ratings run to the end of the song.
      sample_rate: of the sound, in Hz.
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
    spread: listeners.ListenerSpread = dataclasses.field(default_factory=listeners.ListenerSpread)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"synthetic data: seed is {self.seed}, but must be 0 or more.")
        for name in ("minimum_songs", "activity_exponent", "sample_rate"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"synthetic data: {name} is {getattr(self, name)}, but must be above 0."
                )
        for split in SPLITS:
            songs = getattr(self, f"{split}_songs")
            if songs < self.minimum_songs:
                raise UserError(
                    f"synthetic data: {split}_songs is {songs}, but every annotator rates "
                    f"minimum_songs = {self.minimum_songs}; raise the one or lower the other."
                )
            if getattr(self, f"{split}_annotators") < 1:
                raise UserError(f"synthetic data: {split}_annotators must be 1 or more.")
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


@dataclasses.dataclass(eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
    """A TFDS config that carries settings; its name ends in their digest.

    TFDS prepares each config in a folder of its name, so different settings never share one.
    """

    settings: SyntheticSettings = SyntheticSettings()

    def __post_init__(self) -> None:
        if not self.name.endswith(self.settings.digest):
            self.name = f"{self.name}-{self.settings.digest}"


def builder_config(name: str = "default", **fields: Any) -> SyntheticConfig:
    """A config of this name with some settings changed, e.g. `builder_config(train_songs=8)`."""
    known = [field.name for field in dataclasses.fields(SyntheticSettings)]
    for field in fields:
        if field not in known:
            raise UserError(
                f"synthetic data: there is no setting {field!r}; the settings are "
                f"{', '.join(known)}."
            )
    return SyntheticConfig(name=name, settings=SyntheticSettings(**fields))


class Synthetic(tfds.core.GeneratorBasedBuilder):
    """Simulated songs with the ratings of simulated listeners, in the project's schema."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[SyntheticConfig]] = [builder_config()]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Songs rendered from six emotional cues, rated by simulated listeners.",
            features=schema.features(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for song in songs(self.builder_config.settings, split):
            yield song.song_id, schema.encode(song)


def songs(settings: SyntheticSettings, split: str) -> Iterator[schema.Song]:
    """Draws the songs of a split, each with all its ratings.

    Every song, annotator and rating has a random stream of its own, named by split and index: a
    song sounds the same, and an annotator hears it the same, however many others there are.
    """
    annotators = draw_annotators(settings, split)
    rated_by = _assignment(settings, split)
    average = listeners.average_listener(settings.spread)
    for i in range(getattr(settings, f"{split}_songs")):
        cues = draw_cues(settings, split, i)

        def perceive(listener, cues=cues):
            return listeners.perceive(listener, cues, settings.ratings_start_s, settings.ratings)

        ratings = []
        for j in np.flatnonzero(rated_by[:, i]):
            name, listener = annotators[j]
            rng = _stream(settings, split, _RATING, i, j)
            perceived = perceive(listener)
            curve = listeners.rate(rng, listener, perceived, settings.spread)
            ratings.append(schema.Rating(name, curve, perceived))
        yield schema.Song(
            song_id=f"{split}-song-{i:04d}",
            duration_s=settings.duration_s,
            ratings_start_s=settings.ratings_start_s,
            ratings=tuple(ratings),
            waveform=music.render(
                _stream(settings, split, _SONG, i, 1),
                cues,
                settings.duration_s,
                settings.sample_rate,
            ),
            sample_rate=settings.sample_rate,
            population=perceive(average),
        )


def draw_cues(settings: SyntheticSettings, split: str, song: int) -> np.ndarray:
    """[steps, 6]: the cues of a song of the split, from the start of its sound to the end."""
    steps = int(np.ceil(settings.duration_s * music.CUE_HZ)) + 1
    return music.cue_trajectories(_stream(settings, split, _SONG, song, 0), steps)


def draw_annotators(
    settings: SyntheticSettings, split: str
) -> list[tuple[str, listeners.Listener]]:
    """The annotators of a split: (annotator id, listener)."""
    return [
        (
            f"{split}-annotator-{j:04d}",
            listeners.draw_listener(_stream(settings, split, _ANNOTATOR, j, 0), settings.spread),
        )
        for j in range(getattr(settings, f"{split}_annotators"))
    ]


def prepare(data_dir: str | os.PathLike[str], config: SyntheticConfig) -> Synthetic:
    """Renders the data set into `data_dir` unless it is there already.

    Progress bars are shown only where standard error is a terminal.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = Synthetic(data_dir=os.fspath(data_dir), config=config, file_format="array_record")
    builder.download_and_prepare()
    return builder


def _assignment(settings: SyntheticSettings, split: str) -> np.ndarray:
    """[annotators, songs] bool: who rates what."""
    songs = getattr(settings, f"{split}_songs")
    annotators = getattr(settings, f"{split}_annotators")
    rated = np.zeros((annotators, songs), bool)
    for j in range(annotators):
        rng = _stream(settings, split, _ANNOTATOR, j, 1)
        share = 1 - rng.random()
        wanted = settings.minimum_songs * share ** (-1 / settings.activity_exponent)
        count = int(min(wanted, songs))
        rated[j, np.argsort(rng.random(songs))[:count]] = True
    return rated


def _stream(settings: SyntheticSettings, split: str, kind: int, *index: int) -> np.random.Generator:
    key = (SPLITS.index(split), kind, *(int(i) for i in index))
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))
