"""Kaldi's log mel filter bank with ImageBind's options, in JAX.

For each frame of 25 ms, every 10 ms, without frames that would extend past the end:
  x <- x - mean(x);  x[n] <- x[n] - 0.97 x[n-1], with x[-1] = x[0];  x <- x * hann(symmetric)
  P = |FFT of x, zero-padded to a power of two|^2
  log max(F P, eps), with the triangles F of `mel_filters` and the eps of float32.
Source: Kaldi, feat/feature-fbank.cc and feat/mel-computations.cc, with htk_compat (which only
affects the position of the energy, which is absent), without energy and dither.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.errors import UserError

FRAME_S = 0.025
SHIFT_S = 0.010
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
LOG_FLOOR = float(np.finfo(np.float32).eps)


@functools.partial(jax.jit, static_argnames=("sample_rate", "bins"))
def kaldi_fbank(waveform: jax.Array, sample_rate: int, bins: int = 128) -> jax.Array:
    """Returns the natural logarithm of the mel energies.

    Args:
      waveform: [..., samples], full scale 1.
      sample_rate: Sample rate in Hz.
      bins: Number of triangles, from 20 Hz to half the sample rate.

    Returns:
      [..., frames, bins] of the waveform's dtype; frames = 1 + (samples - frame) // shift.

    Raises:
      UserError: The waveform is shorter than one frame.
    """
    frame = int(sample_rate * FRAME_S)
    shift = int(sample_rate * SHIFT_S)
    samples = waveform.shape[-1]
    if samples < frame:
        raise UserError(
            f"audio of {samples} samples at {sample_rate} Hz is shorter than one frame of "
            f"{frame} samples; use audio of at least {FRAME_S * 1000:.0f} ms."
        )
    starts = np.arange(1 + (samples - frame) // shift) * shift
    frames = waveform[..., starts[:, None] + np.arange(frame)]
    frames = frames - frames.mean(axis=-1, keepdims=True)
    before = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    frames = (frames - PREEMPHASIS * before) * np.hanning(frame).astype(waveform.dtype)
    size = 1 << (frame - 1).bit_length()
    spectrum = jnp.fft.rfft(frames, size)
    power = spectrum.real**2 + spectrum.imag**2
    filters = mel_filters(bins, size, sample_rate).astype(waveform.dtype)
    energies = jnp.matmul(power, filters.T, precision="highest")
    return jnp.log(jnp.maximum(energies, LOG_FLOOR))


@functools.lru_cache(maxsize=8)
def mel_filters(bins: int, size: int, sample_rate: int) -> np.ndarray:
    """Returns Kaldi's triangles, [bins, size // 2 + 1] float64.

    Filter b rises and falls linearly in mel(f) = 1127 ln(1 + f / 700), from point b over b + 1 to
    b + 2 of bins + 2 points evenly spaced in mel. The bin at half the sample rate has zero weight.
    """

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    points = np.linspace(mel(LOWEST_HZ), mel(sample_rate / 2), bins + 2)
    step = points[1] - points[0]
    bin_mel = mel(np.arange(size // 2) * (sample_rate / size))
    rising = (bin_mel - points[:-2, None]) / step
    falling = (points[2:, None] - bin_mel) / step
    return np.pad(np.maximum(0, np.minimum(rising, falling)), ((0, 0), (0, 1)))
