"""Feature extraction for one song: decode it, compute its features, store them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from dsaml_jax.audio import store
from dsaml_jax.audio.decoding import blocks_of, reading
from dsaml_jax.audio.features import (
    Embedder,
    image_chunks,
    make_embedder,
    tower_clips,
    window_starts,
)
from dsaml_jax.audio.log_mel import silent
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.job import Job
from dsaml_jax.runtime.files import CannotWrite


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The result of a job.

    Attributes:
      job: The job, without its waveform.
      fault: A sentence saying why the song has no features; "" if it has them.
      clips: [m, clips, clip samples] for ImageBind's tower, whose embedding remains to be computed
        and stored; None if nothing remains to be done.
    """

    job: Job
    fault: str = ""
    clips: np.ndarray | None = None


def extract(job: Job) -> Extracted:
    """Computes and stores a job's missing entries; returns faults of the audio.

    The sound is decoded and its images are stored part by part, so memory does not grow with the
    length of the song, except for ImageBind's clips and for MIDI.

    Raises:
      CannotWrite: The store cannot be written.
    """
    kept = dataclasses.replace(job, waveform=None)
    needs_embedding = not store.is_whole(job.embedding_path)
    embedder = make_embedder(job.segments, job.audio) if needs_embedding else None
    clips = None
    try:
        if embedder or not store.is_whole(job.log_mel_path):
            with store.writing(job.log_mel_path) as entry:
                _write_images(job, entry, embedder)
        if embedder:
            store_embeddings(job, np.stack([*embedder.rows]))
        elif needs_embedding:
            with _reading(job) as (blocks, rate):
                clips = tower_clips(blocks, rate, job.start_s, job.segments, job.audio)
    except CannotWrite:
        raise
    except UserError as error:
        return Extracted(kept, fault=str(error))
    return Extracted(kept, clips=clips)


def _write_images(job: Job, entry: store.Writer, embedder: Embedder | None) -> None:
    """Writes a job's log-mel entry; computes the embeddings, if asked for, from the same sound.

    Raises:
      UserError: The audio cannot be used.
    """
    quiet: list[np.ndarray] = []

    def images(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        chunks = image_chunks(blocks, rate, job.start_s, job.segments, job.audio)
        passed = embedder.through(chunks) if embedder else (images for _, images in chunks)
        for chunk in passed:
            quiet.append(silent(chunk, job.audio))
            yield chunk

    with _reading(job) as (blocks, rate):
        measured = _Measured(rate)
        shape = (job.segments, *job.audio.image)
        entry.add_parts("log_mel", shape, images(measured.through(blocks)))
    name, seconds = job.path or job.song_id, measured.samples / rate
    if job.start_s >= seconds:
        raise UserError(
            f"{name} lasts {seconds:.2f} s, but its ratings begin at {job.start_s:g} s."
        )
    is_silent = np.concatenate(quiet)
    if is_silent[: job.rated].all():
        end_s = job.start_s + job.rated * job.audio.segment_s
        raise UserError(
            f"{name}, its channels averaged, is silent from {job.start_s:g} s to {end_s:g} s, "
            "where it is rated; expected audio."
        )
    entry.add("seconds", np.float64(seconds))
    entry.add("silent", is_silent)
    entry.add("recording", np.array(measured.digest))


@contextlib.contextmanager
def _reading(job: Job) -> Iterator[tuple[Iterator[np.ndarray], int]]:
    """Yields the blocks of a job's sound and its sample rate, as `decoding.reading` does."""
    if job.waveform is not None:
        yield blocks_of(job.waveform), job.sample_rate
        return
    with reading(job.path) as sound:
        yield sound


class _Measured:
    """The length and the hash of a sound, measured as its blocks pass."""

    def __init__(self, rate: int):
        self.samples = 0
        self._hash = hashlib.sha256(f"{rate} ".encode())

    def through(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the blocks."""
        for block in blocks:
            self.samples += len(block)
            self._hash.update(block.astype("<f4").tobytes())
            yield block

    @property
    def digest(self) -> str:
        """Hash of the sample rate and of the samples."""
        return self._hash.hexdigest()


def store_embeddings(job: Job, embeddings: np.ndarray) -> None:
    """Stores the [m, G] embeddings of a song's windows."""
    store.write(
        job.embedding_path,
        embeddings=embeddings.astype(np.float32),
        starts=window_starts(job.segments, job.audio),
    )
