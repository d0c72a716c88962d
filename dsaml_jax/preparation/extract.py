"""Feature extraction for one song: decode it, compute its features, store them.

A job contains everything it needs, so it can run in this process, in another one, or on another
machine that sees the same folders.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.audio import store
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import audio_hash, decode
from dsaml_jax.audio.features import (
    RECIPES,
    SongFeatures,
    song_log_mel,
    statistics_embeddings,
    tower_clips,
    window_starts,
)
from dsaml_jax.audio.log_mel import silent
from dsaml_jax.datasets.schema import RATING_HZ, Song
from dsaml_jax.errors import UserError

VERSION = 2
"""Version of the features; increase it when the same sound and config give other numbers."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One song whose features are to be computed.

    Attributes:
      song_id: Id of the song, for messages.
      path: Path of the audio file; "" if the sound is in `waveform`.
      waveform: int16 samples; None if the sound is in a file.
      sample_rate: Sample rate of `waveform` in Hz.
      start_s: Time of the first rating in seconds.
      segments: n, length of the span.
      rated: Number of segments, from the first on, that any rating covers.
      content: Hash of the audio file, or of `waveform`.
      audio: Config of the features.
      folder: Folder of the feature store.
      log_mel: Key of the song's log-mel entry.
      embedding: Key of the song's embedding entry.
    """

    song_id: str
    path: str
    waveform: np.ndarray | None
    sample_rate: int
    start_s: float
    segments: int
    rated: int
    content: str
    audio: AudioConfig
    folder: str
    log_mel: str
    embedding: str

    @property
    def end_s(self) -> float:
        """End of the span in seconds."""
        return self.start_s + self.segments * self.audio.segment_s

    def done(self) -> bool:
        """Returns whether both entries are in the store."""
        return all(
            store.is_whole(store.entry_path(self.folder, k, self.key(k))) for k in store.KINDS
        )

    def key(self, kind: str) -> str:
        """Returns the key of the entry of this kind."""
        return {"log_mel": self.log_mel, "embedding": self.embedding}[kind]


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


def make_job(song: Song, root: str, audio: AudioConfig, folder: str, weights: str) -> Job:
    """Returns the job of a song; reads its audio file once, to hash it.

    Args:
      song: The song with its ratings as read; the longest one determines the end of the span.
      root: The data set's folder.
      audio: Config of the features.
      folder: Folder of the feature store.
      weights: Hash of the embedding's weights; "" if it has none.

    Raises:
      UserError: The audio file cannot be read.
    """
    longest = max(len(rating.curve) for rating in song.ratings)
    seconds = longest / RATING_HZ
    rated = int(np.ceil(seconds / audio.segment_s - 1e-9))
    segments = max(audio.segments, rated)
    if song.waveform is None:
        path = f"{root}/{song.audio}"
        content = audio_hash(path)
    else:
        path, content = "", store.bytes_hash(song.waveform.astype("<i2").tobytes())
    image_fields = ("sample_rate", "window_s", "hop_s", "mel_bands", "floor", "segment_s")
    image = {name: getattr(audio, name) for name in image_fields}
    windows = {"segments": audio.segments, "hop": audio.embedding_hop}
    if audio.embedding in RECIPES:
        windows |= dataclasses.asdict(RECIPES[audio.embedding]) | {"segment_s": audio.segment_s}
    else:
        windows |= image
    sound = {
        "version": VERSION,
        "content": content,
        "rate": song.sample_rate,
        "start_s": song.ratings_start_s,
        "length": segments,
    }
    return Job(
        song_id=song.song_id,
        path=path,
        waveform=song.waveform,
        sample_rate=song.sample_rate,
        start_s=song.ratings_start_s,
        segments=segments,
        rated=rated,
        content=content,
        audio=audio,
        folder=folder,
        log_mel=store.entry_key(**sound, image=image),
        embedding=store.entry_key(**sound, embedding=[audio.embedding, weights, windows]),
    )


def extract(job: Job) -> Extracted:
    """Computes and stores a job's missing entries; returns faults of the audio."""
    kept = dataclasses.replace(job, waveform=None)
    try:
        waveform, rate = job.waveform, job.sample_rate
        if waveform is None:
            waveform, rate = decode(job.path)
        seconds = len(waveform) / rate
        name = job.path or job.song_id
        if not 0 <= job.start_s < seconds:
            raise UserError(
                f"{name} lasts {seconds:.2f} s, but its ratings begin at {job.start_s:g} s."
            )
        sound = (waveform, rate, job.start_s, job.segments, job.audio)
        span, images = song_log_mel(*sound)
        if silent(images[: job.rated], job.audio).all():
            end_s = job.start_s + job.rated * job.audio.segment_s
            raise UserError(
                f"{name} is silent from {job.start_s:g} s to {end_s:g} s, where it is rated; "
                "expected audio."
            )
    except UserError as error:
        return Extracted(kept, fault=str(error))
    log_mel_path, embedding_path = (
        store.entry_path(job.folder, kind, job.key(kind)) for kind in store.KINDS
    )
    if not store.is_whole(log_mel_path):
        store.write(log_mel_path, log_mel=images, seconds=np.float64(seconds))
    if store.is_whole(embedding_path):
        return Extracted(kept)
    if job.audio.embedding in RECIPES:
        return Extracted(kept, clips=tower_clips(*sound))
    store_embeddings(job, statistics_embeddings(span, images, job.audio))
    return Extracted(kept)


def store_embeddings(job: Job, embeddings: np.ndarray) -> None:
    """Stores the [m, G] embeddings of a song's windows."""
    store.write(
        store.entry_path(job.folder, "embedding", job.embedding),
        embeddings=embeddings.astype(np.float32),
        starts=window_starts(job.segments, job.audio),
    )


def load(job: Job) -> SongFeatures:
    """Returns a song's features from the store.

    Raises:
      UserError: They do not exist, are damaged, or are those of a song of another length.
    """
    paths = [store.entry_path(job.folder, kind, job.key(kind)) for kind in store.KINDS]
    image, embedding = (store.read(path) for path in paths)
    starts = window_starts(job.segments, job.audio)
    sizes = len(image["log_mel"]), len(embedding["embeddings"])
    for path, size, expected in zip(paths, sizes, (job.segments, len(starts)), strict=True):
        if size != expected:
            raise UserError(
                f"{path} has {size} segments or windows, where song {job.song_id} has {expected}; "
                "delete it and prepare the data set again."
            )
    return SongFeatures(image["log_mel"], embedding["embeddings"], embedding["starts"])


def sound_seconds(job: Job) -> float:
    """Returns the length of a song's decoded sound in seconds, from the store."""
    path = store.entry_path(job.folder, "log_mel", job.log_mel)
    return float(store.read(path, "seconds")["seconds"])
