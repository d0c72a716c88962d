"""What preparation has stored of each song: its features, and facts about its sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsaml_jax.audio import store
from dsaml_jax.audio.features import SongFeatures, window_starts
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.job import Job


class StoredFeatures(Mapping[str, SongFeatures]):
    """Features by song id, read from the store on each access."""

    def __init__(self, jobs: Mapping[str, Job]):
        self._jobs = jobs

    def __getitem__(self, song_id: str) -> SongFeatures:
        return load(self._jobs[song_id])

    def source(self, song_id: str) -> str:
        """Returns the store keys of a song's features, which are hashes of all they depend on."""
        job = self._jobs[song_id]
        return f"{job.log_mel} {job.embedding}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)


def load(job: Job) -> SongFeatures:
    """Returns a song's features from the store.

    Raises:
      UserError: They do not exist, are damaged, or are those of a song of another length.
    """
    image = np.atleast_1d(store.read(job.log_mel_path, "log_mel")["log_mel"])
    embedding = store.read(job.embedding_path, "embeddings", "starts")
    starts = window_starts(job.segments, job.audio)
    windows = len(starts)
    for path, size, expected in (
        (job.log_mel_path, len(image), job.segments),
        (job.embedding_path, len(np.atleast_1d(embedding["embeddings"])), windows),
    ):
        if size != expected:
            raise UserError(
                f"{path} has {size} segments or windows, where song {job.song_id} has {expected}; "
                "delete it and prepare the data set again."
            )
    _check(job.log_mel_path, "log_mel", image, "f", (job.segments, *job.audio.image))
    _check(job.embedding_path, "embeddings", embedding["embeddings"], "f", (windows, None))
    _check(job.embedding_path, "starts", embedding["starts"], "iu", (windows,))
    if not np.array_equal(embedding["starts"], starts):
        raise UserError(
            f"{job.embedding_path} has windows that start at other segments than the song's; "
            "delete it and prepare the data set again."
        )
    return SongFeatures(image, embedding["embeddings"], embedding["starts"])


class SoundFacts(NamedTuple):
    """Facts about a song's decoded sound.

    Attributes:
      seconds: Length of the sound.
      silent: [n] bool, whether a segment of the span is silent.
      recording: Hash of the sample rate and samples. Copies in several lossless formats, or with
        other tags, have the same hash.
    """

    seconds: float
    silent: np.ndarray
    recording: str


def sound_facts(job: Job) -> SoundFacts:
    """Returns the facts about a song's sound from the store.

    Raises:
      UserError: As `load`.
    """
    found = store.read(job.log_mel_path, "seconds", "silent", "recording")
    path = job.log_mel_path
    _check(path, "seconds", found["seconds"], "f", ())
    _check(path, "silent", found["silent"], "b", (job.segments,))
    _check(path, "recording", found["recording"], "U", ())
    return SoundFacts(float(found["seconds"]), found["silent"], str(found["recording"]))


def _check(
    path: Path, name: str, array: np.ndarray, kinds: str, shape: tuple[int | None, ...]
) -> None:
    """Raises UserError unless an array has one of the kinds of dtype, the shape, and is finite."""
    right = array.dtype.kind in kinds and len(array.shape) == len(shape)
    right = right and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
    if not right or ("f" in kinds and not np.isfinite(array).all()):
        raise UserError(
            f"{path} holds {name} of type {array.dtype} and shape {array.shape}, or values that "
            f"are not finite; expected shape {shape}: delete it and prepare the data set again."
        )
