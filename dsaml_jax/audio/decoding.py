"""Decoding of audio and MIDI files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from dsaml_jax.audio import ffmpeg_file, midi, sound_file
from dsaml_jax.errors import UserError

MIDI_RATE = 48_000
"""Sample rate of the synthesizer in Hz."""

CANCELED = 1e-3
"""Peak of the channels' mean, relative to their own, below which they cancel each other."""

LOUDEST = 1000.0
"""Largest sample accepted in a file of floats, 60 dB above full scale."""

LOWEST_RATE = 2000
"""Lowest sample rate accepted, in Hz; a header that states less is damaged."""

BLOCK = 65_536
"""Samples per channel that are decoded at once."""

_UNIT = 1024  # samples in which channels cancel or not; divides BLOCK
_LENGTH_UNKNOWN = 2**63 - 1  # what libsndfile states for a FLAC file without its length


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[tuple[Iterator[np.ndarray], int]]:
    """Opens a file for decoding.

    libsndfile reads mp3, wav, flac and ogg, FFmpeg's libraries read m4a and what else
    `ffmpeg_file.SUFFIXES` lists, and `midi.render` synthesizes MIDI.

    Channels are averaged. Where they cancel, what is left is rounding error and is set to 0, so
    that it counts as silence. The sample rate is the file's own. Only one block is in memory at a
    time, except for MIDI, which is rendered as a whole.

    Returns:
      Blocks [samples] float32 mono, full scale 1, in their order, and the sample rate in Hz. The
      blocks must be read to the end, because some faults are known only then.

    Raises:
      UserError: On entering or while blocks are read: the file cannot be read or decoded, or
        contains no sound.
    """
    path = Path(path)
    if path.suffix.lower() in midi.SUFFIXES:
        yield blocks_of(midi.render(path, MIDI_RATE)), MIDI_RATE
        return
    with contextlib.ExitStack() as stack:
        with _explained(path):
            if path.stat().st_size == 0:
                raise UserError(f"{path} is empty; expected audio.")
            if path.suffix.lower() in ffmpeg_file.SUFFIXES:
                blocks, rate = stack.enter_context(ffmpeg_file.opened(path))
            else:
                sound = stack.enter_context(sound_file.opened(path))
                blocks, rate = _decoded(path, sound), sound.samplerate
        if rate < LOWEST_RATE:
            raise UserError(
                f"{path} states a sample rate of {rate} Hz; expected at least {LOWEST_RATE} Hz: "
                "its header is damaged; get the file again."
            )
        yield _averaged(path, blocks), rate


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Returns the whole sound of a file, [samples], and its sample rate in Hz; see `reading`.

    Raises:
      UserError: As `reading`.
    """
    with reading(path) as (blocks, rate):
        return np.concatenate([*blocks]), rate


def blocks_of(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the blocks of a waveform as float32; int16 is scaled to [-1, 1]."""
    for start in range(0, len(waveform), BLOCK):
        block = waveform[start : start + BLOCK]
        yield block.astype(np.float32) / (32_768 if waveform.dtype == np.int16 else 1)


def _decoded(path: Path, sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yields blocks [samples, channels] up to the end of the file."""
    count = 0
    while True:
        with _explained(path):
            block = sound.read(BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            break
        count += len(block)
        yield block
    # An mp3's length may be an estimate; `sound_file` counts its frames.
    if sound.format != "MP3" and count < sound.frames < _LENGTH_UNKNOWN:
        raise UserError(
            f"{path} is damaged: {count} of the {sound.frames} samples that it states can be "
            "decoded, so that some may be missing in the middle and what follows would be out of "
            "time; get the file again."
        )


def _averaged(path: Path, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the mean of the channels, [samples]; raises UserError if there is no usable sound."""
    count, peak, mono_peak = 0, 0.0, 0.0
    for block in blocks:
        peaks = _peaks(block)
        block_peak = float(peaks.max())  # NaN if any sample is
        if not np.isfinite(block_peak):
            raise UserError(f"{path} contains samples that are not finite; expected audio.")
        if block_peak > LOUDEST:
            raise UserError(
                f"{path} contains samples of {block_peak:.3g}; expected at most {LOUDEST:g}, where "
                "1 is full scale: scale the file."
            )
        mono = block.mean(axis=1)
        mono_peaks = _peaks(mono[:, None])
        count, peak = count + len(block), max(peak, block_peak)
        mono_peak = max(mono_peak, float(mono_peaks.max()))
        canceled = mono_peaks < CANCELED * peaks
        if canceled.any():
            mono[np.repeat(canceled, _UNIT)[: len(mono)]] = 0
        yield mono
    if not count:
        raise UserError(f"{path} contains no samples; expected audio.")
    if peak == 0:
        raise UserError(f"{path} is silent throughout; expected audio.")
    if mono_peak < CANCELED * peak:
        raise UserError(
            f"{path} is silent because its channels cancel when they are averaged; invert one of "
            "them."
        )


def _peaks(block: np.ndarray) -> np.ndarray:
    """Returns the largest magnitude in each `_UNIT` samples of a block [samples, channels]."""
    samples, channels = block.shape
    starts = np.arange(0, samples, _UNIT) * channels
    flat = block.reshape(-1)
    # Unlike np.abs this copies nothing.
    return np.maximum(np.maximum.reduceat(flat, starts), -np.minimum.reduceat(flat, starts))


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns errors of opening and decoding into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        raise UserError(
            f"{path} cannot be decoded: {reason}; it is damaged, or not what its name says: get "
            "the file again, or write it in another format, such as with ffmpeg -i OLD NEW.wav."
        ) from error


def audio_hash(path: str | Path) -> str:
    """Hashes everything that a file's sound depends on: its content and, for MIDI, the synthesizer.

    Raises:
      UserError: The file cannot be read or, for MIDI, a package is missing.
    """
    path = Path(path)
    digest = hashlib.sha256(_content_hash(path).encode())
    if path.suffix.lower() in midi.SUFFIXES:
        digest.update(_content_hash(midi.default_sound_font(path)).encode())
        digest.update(midi.synthesizer_version(path).encode())
    return digest.hexdigest()


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
