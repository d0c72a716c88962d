"""Features of songs that belong to no data set, computed as preparation does."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import reading
from dsaml_jax.audio.features import RECIPES, SongFeatures
from dsaml_jax.config.data import DataConfig
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.errors import UserError
from dsaml_jax.personal.shared import SharedModel
from dsaml_jax.preparation import embedding
from dsaml_jax.preparation.extract import Extracted, extract
from dsaml_jax.preparation.job import Job, make_span_job
from dsaml_jax.preparation.stored import load
from dsaml_jax.runtime.files import locked
from dsaml_jax.runtime.pool import over_processes


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of a song, in whole segments.

    Attributes:
      path: the audio file.
      start_s: its start.
      segments: n, its length; the features have at least S segments, with silence after the sound.
      seconds: length of the whole sound.
    """

    path: str
    start_s: float
    segments: int
    seconds: float


def sound_seconds(path: str | Path) -> float:
    """Decodes a file to its end and returns its length.

    Raises:
      UserError: it cannot be read or decoded, or contains no sound.
    """
    with reading(path) as (blocks, rate):
        return sum(len(block) for block in blocks) / rate


def whole_span(
    path: str | Path, audio: AudioConfig, start_s: float = 0.0, end_s: float | None = None
) -> Span:
    """Returns the span of a song from `start_s` to its end, or to `end_s`.

    A segment that begins before the end counts whole.

    Raises:
      UserError: the audio cannot be used, or the span is empty.
    """
    seconds = sound_seconds(path)
    end = seconds if end_s is None else min(end_s, seconds)
    if not 0 <= start_s < end:
        raise UserError(
            f"{path} lasts {seconds:.2f} s; nothing of it lies between {start_s:g} s and "
            f"{'its end' if end_s is None else f'{end_s:g} s'}."
        )
    return Span(str(path), start_s, int(np.ceil((end - start_s) / audio.segment_s - 1e-9)), seconds)


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """Computes features of songs for one shared model.

    Attributes:
      shared: the model.
      cache: folder in which features are kept and found again; "" to compute them every time.
      processes: processes that compute; 0 for one per core.
    """

    shared: SharedModel
    cache: str = ""
    processes: int = 1

    def jobs(self, spans: Iterable[Span], folder: str = "") -> list[Job]:
        """Returns a job for each span; their keys are hashes of all that the features depend on."""
        weights = self.weights_hash()
        audio = self.shared.audio
        return [
            make_span_job(
                span.path,
                span.path,
                start_s=span.start_s,
                rated=span.segments,
                audio=audio,
                folder=folder,
                weights=weights,
            )
            for span in spans
        ]

    def features(self, spans: Iterable[Span]) -> Iterator[SongFeatures]:
        """Yields the features of each span, embeddings scaled.

        Raises:
          UserError: the audio cannot be used, or the embedding's weights are missing.
        """
        with self._folder() as folder:
            jobs = self.jobs(spans, folder)
            uses = collections.Counter(_key(job) for job in jobs)  # files may be copies
            todo = {_key(job): job for job in jobs if not job.done()}
            tower = None
            if todo and (file := self._weights_file()) is not None:
                tower = embedding.load_tower(file, self.shared.audio)
            extracted = over_processes(extract, [*todo.values()], self.processes)
            missing = embedding.embedded(extracted, tower)
            for job in jobs:
                if todo.pop(_key(job), None):
                    _check(next(missing))
                yield _scaled(load(job), self.shared.scaling)
                uses[_key(job)] -= 1
                if not self.cache and not uses[_key(job)]:
                    job.log_mel_path.unlink()
                    job.embedding_path.unlink()

    @contextlib.contextmanager
    def _folder(self) -> Iterator[str]:
        if not self.cache:
            with tempfile.TemporaryDirectory(prefix="dsaml_jax-") as folder:
                yield folder
            return
        with locked(Path(self.cache) / ".lock"):
            yield self.cache

    def _weights_file(self) -> Path | None:
        """Returns the file of the embedding's weights; None if it needs none."""
        kind = self.shared.audio.embedding
        if kind not in RECIPES:
            return None
        if not self.shared.embedding_weights:
            raise UserError(
                f"{self.shared.source} embeds songs with ImageBind ({kind}), whose weights are not "
                "given; give --embedding_weights=imagebind_huge.pth."
            )
        data = DataConfig(
            embedding_weights=self.shared.embedding_weights,
            prepared=self.cache or DataConfig().prepared,
        )
        return embedding.weights_file(data, kind)

    def weights_hash(self) -> str:
        """Returns the hash of the embedding's weights; "" if it needs none."""
        return embedding.weights_hash(self._weights_file())


def _key(job: Job) -> tuple[str, str]:
    return job.log_mel, job.embedding


def _check(extracted: Extracted) -> None:
    if extracted.fault:
        raise UserError(extracted.fault)


def _scaled(song: SongFeatures, scaling: Scaling) -> SongFeatures:
    """Scales embeddings on the device, as `Corpus.scaled` does: NumPy rounds differently."""
    on_device = scaling.apply(jnp.asarray(song.embeddings))
    return song._replace(embeddings=np.asarray(on_device, np.float32))
