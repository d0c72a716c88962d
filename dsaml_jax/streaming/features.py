"""The model's inputs for the newest window of a stream, in bounded memory.

With k + 1 segments heard, the window is what offline prediction reads the last of them in, if the
song ended there: the last S segments; while k + 1 < S, all of them and then silence, as a song
shorter than S segments is padded. What windows share is kept: each log-mel image is computed once,
and descriptors of a segment until all sound that they depend on has been heard.

What is known of the global embedding:
- "statistics" and ImageBind's describe the S segments of the window. Early in a song these are what
  was heard and silence, so that level, dynamics and pulse are those of a song that breaks off.
- "descriptors" of a segment take up to 6.5 s of sound after it, and means over 15 s on either side.
  Those of the newest segments are computed from what has been heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import librosa
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.descriptors import (
    CONTEXT,
    DESCRIPTORS,
    MEAN_REACH,
    RATE,
    describe_sound,
    with_long_means,
)
from dsaml_jax.audio.features import RECIPES
from dsaml_jax.audio.imagebind_input import select_clips
from dsaml_jax.audio.log_mel import log_mel
from dsaml_jax.audio.statistics import clip_statistics
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.errors import UserError
from dsaml_jax.streaming.sound import SegmentStream

Tower = Callable[[list[np.ndarray]], np.ndarray]
"""ImageBind's tower, see `preparation.embedding.load_tower`."""


class StreamedWindow(NamedTuple):
    """The inputs of one prediction.

    Attributes:
      segment: k, the newest segment.
      log_mel: [S, T, F] float32.
      embedding: [G], or [S, G] of each segment, float32, scaled.
      heard: how many of the S segments are sound, not silence that stands for what is to come.
    """

    segment: int
    log_mel: np.ndarray
    embedding: np.ndarray
    heard: int

    @property
    def position(self) -> int:
        """The place of the newest segment in the window."""
        return self.heard - 1


class StreamingFeatures:
    """Computes the newest window each time that sound completes a segment.

    Args:
      audio: sizes of the features, as in training.
      sample_rate: of the sound that arrives, in Hz.
      scaling: of the embedding, as in training; None for none.
      tower: ImageBind's, if `audio.embedding` is its. It is run every `audio.embedding_hop`
        segments, and its last embedding is used in between.

    Raises:
      UserError: the sample rate is out of range, or the tower is missing.
    """

    def __init__(
        self,
        audio: AudioConfig,
        sample_rate: int,
        *,
        scaling: Scaling | None = None,
        tower: Tower | None = None,
    ):
        self._audio, self._scaling = audio, scaling
        size = audio.segment_samples
        self._stream = SegmentStream(sample_rate, audio.sample_rate, size)
        self._silence = log_mel(np.zeros((1, size), np.float32), audio)[0]
        self._images: deque[np.ndarray] = deque(maxlen=audio.segments)
        self._embedder = _embedder(audio, tower)
        self._count = 0

    def push(self, block: np.ndarray) -> list[StreamedWindow]:
        """Returns a window for each segment that a block completes; see `SegmentStream.push`."""
        return [self._window(samples) for samples in self._stream.push(block)]

    def finish(self) -> list[StreamedWindow]:
        """Returns the windows that are left at the end, where silence fills the last segment up."""
        return [self._window(samples) for samples in self._stream.finish()]

    def _window(self, samples: np.ndarray) -> StreamedWindow:
        audio = self._audio
        self._images.append(log_mel(samples[None], audio)[0])
        self._count += 1
        heard = len(self._images)
        missing = [self._silence] * (audio.segments - heard)
        images = np.stack([*self._images, *missing])
        embedding = self._embedder.append(samples, images)
        if self._scaling is not None:
            embedding = self._scaling.apply(embedding)
        return StreamedWindow(self._count - 1, images, embedding, heard)


class _Embedder(Protocol):
    def append(self, samples: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Takes a segment's samples and the window's images; returns the window's embedding."""
        ...


def _embedder(audio: AudioConfig, tower: Tower | None) -> _Embedder:
    if audio.embedding_per_segment:
        return _Descriptors(audio)
    if audio.embedding not in RECIPES:
        return _Statistics(audio)
    if tower is None:
        raise UserError(
            f"The model uses the embedding {audio.embedding}, which needs ImageBind's weights; "
            "pass the tower that preparation.embedding.load_tower returns."
        )
    return _ImageBind(audio, tower)


class _Sound:
    """The last sound of a stream, in segments."""

    def __init__(self, segments: int):
        self._held: deque[np.ndarray] = deque(maxlen=segments)

    def append(self, samples: np.ndarray) -> None:
        self._held.append(samples)

    def padded(self, heard: int, segments: int) -> np.ndarray:
        """Returns the last `heard` segments, followed by silence up to `segments`: [samples]."""
        parts = [*self._held][len(self._held) - heard :]
        sound = np.concatenate(parts)
        return np.pad(sound, (0, (segments - heard) * len(parts[0])))

    def __len__(self) -> int:
        return len(self._held)


class _Statistics:
    """`clip_statistics` of the window."""

    def __init__(self, audio: AudioConfig):
        self._audio, self._sound = audio, _Sound(audio.segments)

    def append(self, samples: np.ndarray, images: np.ndarray) -> np.ndarray:
        self._sound.append(samples)
        sound = self._sound.padded(len(self._sound), self._audio.segments)
        return clip_statistics(sound, images, self._audio)


class _ImageBind:
    """ImageBind's embedding of a window, renewed every `embedding_hop` segments."""

    def __init__(self, audio: AudioConfig, tower: Tower):
        self._audio, self._tower = audio, tower
        self._sound = _Sound(audio.segments)
        self._embedding = np.zeros(0, np.float32)
        self._count = 0

    def append(self, samples: np.ndarray, images: np.ndarray) -> np.ndarray:
        audio = self._audio
        self._sound.append(samples)
        if self._count % audio.embedding_hop == 0:
            recipe = RECIPES[audio.embedding]
            sound = self._sound.padded(len(self._sound), audio.segments)
            sound = librosa.resample(sound, orig_sr=audio.sample_rate, target_sr=recipe.sample_rate)
            self._embedding = self._tower([select_clips(sound, recipe)])[0]
        self._count += 1
        return self._embedding


class _Descriptors:
    """Descriptors of the window's segments, and their means around them.

    Those of a segment are final once `CONTEXT` more have been heard. Until then they are computed
    anew with each segment, from the sound so far (and the silence up to S segments).
    """

    def __init__(self, audio: AudioConfig):
        self._audio = audio
        self._sound = _Sound(2 * CONTEXT + 1)
        self._final: deque[np.ndarray] = deque(maxlen=audio.segments + MEAN_REACH)
        self._count = 0

    def append(self, samples: np.ndarray, images: np.ndarray) -> np.ndarray:
        length = self._audio.segments
        self._sound.append(samples)
        self._count += 1
        end = max(self._count, length)  # of the song, if it ended now
        first = max(self._count - 1 - CONTEXT, 0)  # of the segments that are not final yet
        heard = len(self._sound)
        sound = self._sound.padded(heard, heard + end - self._count)
        if self._audio.sample_rate != RATE:
            sound = librosa.resample(sound, orig_sr=self._audio.sample_rate, target_sr=RATE)
        begin = self._count - heard
        newest = describe_sound(sound, end - begin)[first - begin :]
        rows = np.concatenate([np.reshape([*self._final], (-1, DESCRIPTORS)), newest])
        if self._count > CONTEXT:
            self._final.append(newest[0])
        return with_long_means(rows)[-length:]
