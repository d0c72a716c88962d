"""What ImageBind's audio tower is given: a few clips of a waveform, each as a mel filter bank.

Source: https://github.com/facebookresearch/ImageBind, imagebind/data.py; the clips are those of
PyTorchVideo's ConstantClipsPerVideoSampler.
"""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.audio.kaldi_fbank import kaldi_fbank


@dataclasses.dataclass(frozen=True)
class ImageBindRecipe:
    """How a waveform becomes the tower's input.

    Attributes:
      sample_rate: of the waveforms, in Hz; the caller resamples.
      clips: number of clips, spread evenly over the waveform, the first at its start and the last
        at its end.
      clip_s: length of a clip in seconds; a shorter waveform is one clip, taken `clips` times.
      bins: mel bands.
      frames: columns of the image; shorter filter banks get zeros (before normalization).
      mean, std: the normalization (x - mean) / std.
    """

    sample_rate: int = 16_000
    clips: int = 3
    clip_s: int = 2
    bins: int = 128
    frames: int = 204
    mean: float = -4.268
    std: float = 9.138


PUBLISHED = ImageBindRecipe()
"""ImageBind's own: audio at 16 kHz."""

AS_RELEASED = ImageBindRecipe(sample_rate=44_100)
"""What DSAML's release feeds the tower: audio at 44.1 kHz, which it was not trained on."""


def select_clips(waveform: np.ndarray, recipe: ImageBindRecipe = PUBLISHED) -> np.ndarray:
    """The clips of a waveform [samples], [clips, clip samples].

    Clip i starts at i (T - clip_s) / (clips - 1) seconds, rounded down to a sample, T the
    waveform's length.
    """
    rate = recipe.sample_rate
    length = min(recipe.clip_s * rate, len(waveform))
    # T is the nearest float and the rest exact, as in ImageBind: no clip may start one sample off.
    latest = Fraction(max(len(waveform) / rate - recipe.clip_s, 0)) / max(recipe.clips - 1, 1)
    starts = (min(int(i * latest * rate), len(waveform) - length) for i in range(recipe.clips))
    return np.stack([waveform[start : start + length] for start in starts])


@functools.partial(jax.jit, static_argnames="recipe")
def imagebind_fbank(clips: jax.Array, recipe: ImageBindRecipe = PUBLISHED) -> jax.Array:
    """The tower's input: clips [..., samples] -> [..., 1, bins, frames].

    Raises:
      UserError: clips shorter than one frame of the filter bank.
    """
    clips = clips - clips.mean(axis=-1, keepdims=True)
    fbank = kaldi_fbank(clips, recipe.sample_rate, recipe.bins)[..., : recipe.frames, :]
    missing = recipe.frames - fbank.shape[-2]
    fbank = jnp.pad(fbank, [(0, 0)] * (fbank.ndim - 2) + [(0, missing), (0, 0)])
    return ((jnp.swapaxes(fbank, -1, -2) - recipe.mean) / recipe.std)[..., None, :, :]
