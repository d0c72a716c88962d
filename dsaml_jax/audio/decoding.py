"""Decoding of audio and MIDI files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dsaml_jax.audio import midi, sound_file
from dsaml_jax.errors import UserError

MIDI_RATE = 48_000
"""Sample rate of the synthesizer in Hz."""

CANCELED = 1e-3
"""Peak of the channels' mean, relative to their own, below which they cancel each other."""

LOUDEST = 1000.0
"""Largest sample accepted in a file of floats, 60 dB above full scale."""


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Decodes a file: mp3, wav, flac or ogg with libsndfile, MIDI with `midi.render`.

    Channels are averaged. The sample rate is the file's own.

    Returns:
      [samples] float32 mono, full scale 1, and the sample rate in Hz.

    Raises:
      UserError: The file cannot be read or decoded, or contains no sound.
    """
    path = Path(path)
    if path.suffix.lower() in midi.SUFFIXES:
        return midi.render(path, MIDI_RATE), MIDI_RATE
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; expected audio.")
        # One read: between partial reads of an mp3 libsndfile seeks, which garbles their starts.
        with sound_file.opened(path) as sound:
            samples, rate = sound.read(dtype="float32", always_2d=True), sound.samplerate
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        raise UserError(f"{path} cannot be decoded: {reason}.") from error
    except (MemoryError, ValueError) as error:  # soundfile allocates what the header states
        raise UserError(
            f"{path} cannot be decoded: its header states no length, as after writing to a pipe, "
            "or more than fits in memory; write the file again, such as with ffmpeg -i OLD NEW."
        ) from error
    if not samples.size:
        raise UserError(f"{path} contains no samples; expected audio.")
    peak = float(max(samples.max(), -samples.min()))  # unlike np.abs, copies nothing; NaN if any is
    if not np.isfinite(peak):
        raise UserError(f"{path} contains samples that are not finite; expected audio.")
    if peak == 0:
        raise UserError(f"{path} is silent throughout; expected audio.")
    if peak > LOUDEST:
        raise UserError(
            f"{path} contains samples of {peak:.3g}; expected at most {LOUDEST:g}, where 1 is full "
            "scale: scale the file."
        )
    mono = samples.mean(axis=1)
    if np.abs(mono).max() < CANCELED * peak:
        raise UserError(
            f"{path} is silent because its channels cancel when they are averaged; invert one of "
            "them."
        )
    return mono, rate


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
