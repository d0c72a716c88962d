"""The features of one song as a job: what is to be computed from what, and where it is stored.

A job contains everything it needs, so it can run in this process, in another one, or on another
machine that sees the same folders.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dsaml_jax.audio import store
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import audio_hash
from dsaml_jax.audio.features import RECIPES
from dsaml_jax.datasets.schema import RATING_HZ, Song

VERSION = 3
"""Version of the entries; increase it when the same sound and config give another entry."""


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

    @property
    def log_mel_path(self) -> Path:
        """Path of the song's log-mel entry."""
        return store.entry_path(self.folder, "log_mel", self.log_mel)

    @property
    def embedding_path(self) -> Path:
        """Path of the song's embedding entry."""
        return store.entry_path(self.folder, "embedding", self.embedding)

    def done(self) -> bool:
        """Returns whether both entries are in the store."""
        return store.is_whole(self.log_mel_path) and store.is_whole(self.embedding_path)


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
    return make_span_job(
        song.song_id,
        f"{root}/{song.audio}" if song.waveform is None else "",
        start_s=song.ratings_start_s,
        rated=int(np.ceil(seconds / audio.segment_s - 1e-9)),
        audio=audio,
        folder=folder,
        weights=weights,
        waveform=song.waveform,
        sample_rate=song.sample_rate,
    )


def make_span_job(
    song_id: str,
    path: str,
    *,
    start_s: float,
    rated: int,
    audio: AudioConfig,
    folder: str,
    weights: str,
    waveform: np.ndarray | None = None,
    sample_rate: int = 0,
) -> Job:
    """Returns the job of `rated` segments of a song from `start_s` on, but of at least S.

    Args:
      song_id: For messages.
      path: The audio file; "" if the sound is in `waveform`.
      start_s: Start of the first segment in seconds.
      rated: Number of segments that are rated, or to be predicted.
      audio: Config of the features.
      folder: Folder of the feature store.
      weights: Hash of the embedding's weights; "" if it has none.
      waveform: int16 samples.
      sample_rate: Sample rate of `waveform` in Hz.

    Raises:
      UserError: The audio file cannot be read.
    """
    segments = max(audio.segments, rated)
    if waveform is None:
        content = audio_hash(path)
    else:
        content = store.bytes_hash(waveform.astype("<i2").tobytes())
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
        "rate": sample_rate,
        "start_s": start_s,
        "length": segments,
    }
    return Job(
        song_id=song_id,
        path=path,
        waveform=waveform,
        sample_rate=sample_rate,
        start_s=start_s,
        segments=segments,
        rated=rated,
        content=content,
        audio=audio,
        folder=folder,
        log_mel=store.entry_key(**sound, image=image),
        embedding=store.entry_key(**sound, embedding=[audio.embedding, weights, windows]),
    )
