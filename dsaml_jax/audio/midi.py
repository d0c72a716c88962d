"""Rendering of MIDI files.

The synthesizer is the package midirenderer (a wheel without system libraries, for Python 3.8 and
later on Linux, macOS and Windows); the sound font is TimGM6mb.sf2 from pretty_midi. Both are
installed by `pip install -r requirements-vgmidi.txt`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import warnings
from pathlib import Path

import librosa
import numpy as np
import soundfile

from dsaml_jax.errors import UserError

SUFFIXES = (".mid", ".midi")
SOUND_FONT = "TimGM6mb.sf2"
LONGEST_S = 3600


def render(path: str | Path, sample_rate: int, sound_font: str | Path | None = None) -> np.ndarray:
    """Renders a MIDI file as sound.

    It is rendered at the synthesizer's own 48 kHz and 16 bit; left and right are averaged, then
    resampled (soxr, high quality). It ends with the last note. The level is not normalized, because
    loudness is part of a piece's expression. Rendering is deterministic.

    Args:
      path: The MIDI file.
      sample_rate: Sample rate of the result in Hz.
      sound_font: An .sf2 file; defaults to the one in pretty_midi.

    Returns:
      [samples] float32 in [-1, 1].

    Raises:
      UserError: A package is missing, or a file cannot be read or has no notes.
    """
    try:
        import midirenderer
    except ImportError as error:
        raise UserError(_needs("midirenderer", path)) from error
    check(path)
    font = Path(sound_font) if sound_font is not None else default_sound_font(path)
    font_bytes, notes = _bytes(font), _bytes(Path(path))
    try:
        wave = midirenderer.render_wave_from(font_bytes, notes)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the synthesizer's Rust code is not an Exception
        raise UserError(f"{path} cannot be rendered with {font.name}: {error}.") from error
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if not mono.size or not np.any(mono):
        raise UserError(f"{path} has no audible notes; expected a MIDI file with music.")
    if rate != sample_rate:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.clip(mono, -1.0, 1.0).astype(np.float32)


def check(path: str | Path) -> float:
    """Returns the length of a MIDI file in seconds, to the end of its last note.

    The synthesizer trusts its input, and a corrupt length makes it allocate more memory than
    exists. So the file is first read by a parser that validates it.

    Raises:
      UserError: pretty_midi is not installed; the file cannot be read, is not MIDI, has no notes,
        or is longer than `LONGEST_S`.
    """
    try:
        import pretty_midi
    except ImportError as error:
        raise UserError(_needs("pretty_midi", path)) from error
    content = _bytes(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tempo changes on later tracks, which are read
            seconds = float(pretty_midi.PrettyMIDI(io.BytesIO(content)).get_end_time())
    except Exception as error:  # damaged files raise many kinds of exceptions
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as MIDI: {reason}.") from error
    if not 0 < seconds <= LONGEST_S:
        raise UserError(
            f"{path} lasts {seconds:g} s; expected more than 0 s and at most {LONGEST_S} s."
        )
    return seconds


def default_sound_font(wanted_for: str | Path) -> Path:
    """Returns the path of pretty_midi's sound font.

    Raises:
      UserError: pretty_midi is not installed or lacks the file.
    """
    package = importlib.util.find_spec("pretty_midi")
    if package is None or package.origin is None:
        raise UserError(_needs("pretty_midi", wanted_for))
    font = Path(package.origin).parent / SOUND_FONT
    if not font.is_file():
        raise UserError(
            f"pretty_midi lacks {SOUND_FONT}; reinstall it: pip install -r requirements-vgmidi.txt."
        )
    return font


def synthesizer_version(wanted_for: str | Path) -> str:
    """Returns the version of the synthesizer, since other versions may sound different.

    Raises:
      UserError: It is not installed.
    """
    try:
        return importlib.metadata.version("midirenderer")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(_needs("midirenderer", wanted_for)) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _needs(package: str, path: str | Path) -> str:
    return f"rendering {path} needs {package}: pip install -r requirements-vgmidi.txt."
