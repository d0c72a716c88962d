"""MIDI rendered to audio.

The synthesizer is the package midirenderer (a wheel without system libraries, for Python 3.8 and
later on Linux, macOS and Windows); the sound font is TimGM6mb.sf2, which pretty_midi ships. Both
come with `pip install -r requirements-vgmidi.txt`.
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
    """The sound of a MIDI file.

    Rendered at the synthesizer's own 48 kHz and 16 bit, left and right averaged, then resampled
    (soxr, high quality). It ends with the last note. The level is left as it is: how loud a piece
    plays is part of what it expresses. The same file gives the same samples each time.

    Args:
      path: the MIDI file.
      sample_rate: of the result, in Hz.
      sound_font: an .sf2 file; by default the one that pretty_midi ships.

    Returns:
      [samples] float32 in [-1, 1].

    Raises:
      UserError: a package is missing, or a file cannot be read or has no notes.
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
    except BaseException as error:  # a panic of the synthesizer's Rust code is no Exception
        raise UserError(f"{path} cannot be rendered with {font.name}: {error}.") from error
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if not mono.size or not np.any(mono):
        raise UserError(f"{path} has no notes that sound; expected a MIDI file with music.")
    if rate != sample_rate:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return np.clip(mono, -1.0, 1.0).astype(np.float32)


def check(path: str | Path) -> float:
    """Length of a MIDI file in seconds, to the end of its last note.

    The synthesizer trusts its input: a damaged length makes it ask for more memory than there is.
    So the file is first read by a parser that does not.

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
            warnings.simplefilter("ignore")  # of tempo changes on later tracks, which are read
            seconds = float(pretty_midi.PrettyMIDI(io.BytesIO(content)).get_end_time())
    except Exception as error:  # damaged files fail in many ways, each with a class of its own
        told = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as MIDI: {told}.") from error
    if not 0 < seconds <= LONGEST_S:
        raise UserError(
            f"{path} lasts {seconds:g} s; expected notes and at most {LONGEST_S} s of them."
        )
    return seconds


def default_sound_font(wanted_for: str | Path) -> Path:
    """The sound font that pretty_midi ships.

    Raises:
      UserError: pretty_midi is not installed, or holds no such file.
    """
    package = importlib.util.find_spec("pretty_midi")
    if package is None or package.origin is None:
        raise UserError(_needs("pretty_midi", wanted_for))
    font = Path(package.origin).parent / SOUND_FONT
    if not font.is_file():
        raise UserError(f"pretty_midi holds no {SOUND_FONT} here; give another sound font (.sf2).")
    return font


def synthesiser_version(wanted_for: str | Path) -> str:
    """The version of the synthesizer: another one may sound otherwise.

    Raises:
      UserError: it is not installed.
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
    return (
        f"{path} is MIDI, and rendering it needs {package}: pip install -r requirements-vgmidi.txt."
    )
