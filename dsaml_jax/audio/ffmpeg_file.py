"""Decoding of files that libsndfile does not read, such as m4a, with FFmpeg's libraries (PyAV)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsaml_jax.errors import UserError

SUFFIXES = frozenset((".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mov"))
"""Files that are decoded by FFmpeg's libraries, without ffmpeg itself."""

_BLOCK = 65_536  # samples in a block, at least
_SHORT_S = 1.0  # a file may state so much more sound than it has


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Iterator[np.ndarray], int]]:
    """Opens a file's first audio stream.

    Returns:
      Blocks [samples, channels] float32, full scale 1, and the sample rate in Hz.

    Raises:
      UserError: On entering or while blocks are read: PyAV is not installed, or the file cannot be
        read or decoded, has no sound, or ends early.
    """
    try:
        import av  # pyright: ignore[reportMissingImports] - optional
    except ImportError as error:
        raise UserError(
            f"{path} is read by FFmpeg's libraries: pip install 'dsaml_jax[m4a]' "
            "(requirements-m4a.txt), or convert it, such as with ffmpeg -i OLD NEW.flac."
        ) from error
    with contextlib.ExitStack() as stack:
        with _explained(path, av):
            container: Any = stack.enter_context(av.open(str(path), metadata_errors="replace"))
        if not container.streams.audio:
            raise UserError(f"{path} has no sound; expected audio.")
        stream = container.streams.audio[0]
        yield _blocks(path, av, container, stream), int(stream.rate)


def _blocks(path: Path, av: Any, container: Any, stream: Any) -> Iterator[np.ndarray]:
    convert = av.AudioResampler(format="fltp")
    held: list[np.ndarray] = []
    count = 0
    frames = _frames(container, stream, convert)
    while True:
        with _explained(path, av):
            frame = next(frames, None)
        if frame is not None:
            held.append(frame.T)
        if held and (frame is None or sum(map(len, held)) >= _BLOCK):
            count += sum(map(len, held))
            yield np.ascontiguousarray(np.concatenate(held), np.float32)
            held = []
        if frame is None:
            break
    stated = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if count / stream.rate < stated - _SHORT_S:
        raise UserError(
            f"{path} cannot be decoded: it ends after {count / stream.rate:.1f} s of the "
            f"{stated:.1f} s that it states; restore it."
        )


def _frames(container: Any, stream: Any, convert: Any) -> Iterator[np.ndarray]:
    """Yields [channels, samples] of each frame."""
    for frame in container.decode(stream):
        for part in convert.resample(frame):
            yield part.to_ndarray()
    for part in convert.resample(None):
        yield part.to_ndarray()


@contextlib.contextmanager
def _explained(path: Path, av: Any) -> Iterator[None]:
    """Turns errors of FFmpeg's libraries into UserError."""
    try:
        yield
    except av.error.FFmpegError as error:
        reason = (error.strerror or type(error).__name__).rstrip(".")
        verb = "read" if isinstance(error, FileNotFoundError | PermissionError) else "decoded"
        raise UserError(f"{path} cannot be {verb}: {reason}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
