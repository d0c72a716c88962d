"""Arousal and valence of the newest half second of a stream."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.model import DSAML, DSAMLConfig
from dsaml_jax.streaming.features import StreamedWindow, StreamingFeatures, Tower


class Value(NamedTuple):
    """The prediction for one half second.

    Attributes:
      time_s: where it starts, in seconds from the start of the stream.
      arousal, valence: the prediction.
      heard_s: seconds of sound that it rests on, at most those of a window.
    """

    time_s: float
    arousal: float
    valence: float
    heard_s: float


class WindowReader:
    """Predicts the newest segment of successive windows of one stream with one set of weights.

    With normalization "running" the local features of a segment are computed once and kept for all
    windows that contain it.

    Args:
      model: the model.
      variables: its weights, as `Weights.variables`.
    """

    def __init__(self, model: DSAMLConfig, variables: dict[str, Any]):
        self._model, self._variables = model, variables
        self._local: jax.Array | None = None

    def read(self, window: StreamedWindow) -> np.ndarray:
        """Returns (arousal, valence) of the newest segment: [2]."""
        log_mel, embedding, position = window.log_mel[None], window.embedding[None], window.position
        arguments = self._model, self._variables
        if self._model.normalization != "running":
            return np.asarray(_predict(*arguments, log_mel, embedding, position))
        if self._local is None:
            self._local = _describe(*arguments, log_mel)
        else:
            newest = _describe(*arguments, log_mel[:, position : position + 1])
            self._local = _kept(self._local, newest, position, window.segment > position)
        return np.asarray(_predict_described(*arguments, self._local, embedding, position))


class StreamingPredictor:
    """Takes sound as it arrives and gives a value for every segment that it completes.

    The value of segment k is the last one of the curve that would be predicted offline if the song
    ended after it. Memory does not grow with the length of the stream.

    Args:
      model: the model.
      audio: sizes of the features, as in training.
      variables: the weights, as `Weights.variables`.
      sample_rate: of the sound that arrives, in Hz.
      scaling: of the embedding, as in training; None for none.
      tower: ImageBind's, if `audio.embedding` is its.

    Raises:
      UserError: the sample rate is out of range, or the tower is missing.
    """

    def __init__(
        self,
        model: DSAMLConfig,
        audio: AudioConfig,
        variables: dict[str, Any],
        sample_rate: int,
        *,
        scaling: Scaling | None = None,
        tower: Tower | None = None,
    ):
        self._segment_s = audio.segment_s
        self._features = StreamingFeatures(audio, sample_rate, scaling=scaling, tower=tower)
        self._reader = WindowReader(model, variables)

    def push(self, block: np.ndarray) -> list[Value]:
        """Returns the values of the segments that a block completes.

        Args:
          block: [samples], or [samples, channels], which are averaged; floats with full scale 1, or
            int16. Any number of samples.

        Raises:
          UserError: the block has another shape or type, or samples that are not finite or absurdly
            loud.
        """
        return [self._value(window) for window in self._features.push(block)]

    def finish(self) -> list[Value]:
        """Returns the values that are left at the end; silence fills the last segment up."""
        return [self._value(window) for window in self._features.finish()]

    def _value(self, window: StreamedWindow) -> Value:
        arousal, valence = self._reader.read(window).tolist()
        heard_s = window.heard * self._segment_s
        return Value(window.segment * self._segment_s, arousal, valence, heard_s)


@functools.partial(jax.jit, static_argnums=0)
def _predict(
    model: DSAMLConfig,
    variables: dict[str, Any],
    log_mel: np.ndarray,
    embedding: np.ndarray,
    position: int,
) -> jax.Array:
    features, _ = DSAML(model).apply(variables, log_mel, embedding, method="encode")
    return _read(model, variables, features, position)


@functools.partial(jax.jit, static_argnums=0)
def _describe(model: DSAMLConfig, variables: dict[str, Any], log_mel: np.ndarray) -> jax.Array:
    return cast(jax.Array, DSAML(model).apply(variables, log_mel, method="describe"))


@jax.jit
def _kept(local_1SD: jax.Array, newest: jax.Array, position: int, passed: bool) -> jax.Array:
    """Puts the newest local features at `position`, after dropping the oldest ones if `passed`."""
    moved = jnp.where(passed, jnp.roll(local_1SD, -1, axis=1), local_1SD)
    return jax.lax.dynamic_update_slice_in_dim(moved, newest, position, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _predict_described(
    model: DSAMLConfig,
    variables: dict[str, Any],
    local_1SD: jax.Array,
    embedding: np.ndarray,
    position: int,
) -> jax.Array:
    features = DSAML(model).apply(variables, local_1SD, embedding, method="encode_described")
    return _read(model, variables, cast(jax.Array, features), position)


def _read(
    model: DSAMLConfig, variables: dict[str, Any], features: jax.Array, position: int
) -> jax.Array:
    curve = cast(jax.Array, DSAML(model).apply(variables, features, method="predict"))
    return curve[0, position]
