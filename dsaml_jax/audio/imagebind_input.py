"""The input of ImageBind's audio tower: a few clips of a waveform, each as a mel filter bank.

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
    """How a waveform is converted to the tower's input.

    Attributes:
      sample_rate: Rate of the waveforms in Hz; the caller resamples.
      clips: Number of clips, evenly spaced, the first at the start of the waveform and the last
        at its end.
      clip_s: Length of a clip in seconds; a shorter waveform is repeated as every clip.
      bins: Number of mel bands.
      frames: Number of columns of the image; shorter filter banks are zero-padded before
        normalization.
      mean: Mean of the normalization (x - mean) / std.
      std: Standard deviation of the normalization.
    """

    sample_rate: int = 16_000
    clips: int = 3
    clip_s: int = 2
    bins: int = 128
    frames: int = 204
    mean: float = -4.268
    std: float = 9.138


PUBLISHED = ImageBindRecipe()
"""ImageBind's own recipe: audio at 16 kHz."""

AS_RELEASED = ImageBindRecipe(sample_rate=44_100)
"""The recipe of DSAML's release: audio at 44.1 kHz, on which the tower was not trained."""


def select_clips(waveform: np.ndarray, recipe: ImageBindRecipe = PUBLISHED) -> np.ndarray:
    """Returns the clips [clips, clip samples] of a waveform [samples].

    Clip i starts at i (T - clip_s) / (clips - 1) seconds, rounded down to a sample, where T is the
    length of the waveform.
    """
    rate = recipe.sample_rate
    length = min(recipe.clip_s * rate, len(waveform))
    # As in ImageBind, T is rounded to a float and the rest is exact; otherwise a clip could start
    # one sample off.
    latest = Fraction(max(len(waveform) / rate - recipe.clip_s, 0)) / max(recipe.clips - 1, 1)
    starts = (min(int(i * latest * rate), len(waveform) - length) for i in range(recipe.clips))
    return np.stack([waveform[start : start + length] for start in starts])


@functools.partial(jax.jit, static_argnames="recipe")
def imagebind_fbank(clips: jax.Array, recipe: ImageBindRecipe = PUBLISHED) -> jax.Array:
    """Returns the tower's input: clips [..., samples] -> [..., 1, bins, frames].

    Raises:
      UserError: The clips are shorter than one frame of the filter bank.
    """
    clips = clips - clips.mean(axis=-1, keepdims=True)
    fbank = kaldi_fbank(clips, recipe.sample_rate, recipe.bins)[..., : recipe.frames, :]
    missing = recipe.frames - fbank.shape[-2]
    fbank = jnp.pad(fbank, [(0, 0)] * (fbank.ndim - 2) + [(0, missing), (0, 0)])
    return ((jnp.swapaxes(fbank, -1, -2) - recipe.mean) / recipe.std)[..., None, :, :]
