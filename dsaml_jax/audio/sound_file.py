"""Opening of sound files, and the length of an mp3 by its frames.

An mp3 states no length, except in a first frame named "Xing" or "Info" that some encoders add.
Without that frame libsndfile divides the size of the file by that of its first frame and stops
reading there, which is too early for some files of variable bit rate. Of several mp3s joined into
one file it reads only the first. Where frames are missing it goes on with the next, so that all
later sound is early. Source of the layout: ISO/IEC 11172-3 and 13818-3, layer III.

A wav whose recorder was switched off states less sound than it holds, or none.
"""

from __future__ import annotations

import contextlib
import io
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import soundfile

from dsaml_jax.errors import UserError

_KBIT = {  # bit rates by whether the file is MPEG-1 and the header's index; 0 is not supported
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES = (44_100, 48_000, 32_000, 0)
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # MPEG-1, MPEG-2, MPEG-2.5
_PADDING = 2 * 4095
"""Largest delay plus padding, in samples, that a header can make libsndfile cut off."""
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
"""What tags between and after frames begin with."""
_MISSING = 2
"""Frames that encoders may count, but not write."""


class _Header(NamedTuple):
    """Fields of a frame's header: MPEG version bits, sample rate in Hz, and frame size in bytes."""

    mpeg: int
    rate: int
    size: int

    @property
    def samples(self) -> int:
        """Samples per channel in the frame."""
        return 1152 if self.mpeg == 3 else 576

    def continues(self, other: _Header | None) -> bool:
        """Returns whether both may belong to one stream; None stands for any stream."""
        return other is None or self[:2] == other[:2]


class _Sequential(soundfile.SoundFile):
    """A sound file that is read from its start to its end.

    After each read of a file that it may seek in, `soundfile` seeks to where it is, which changes
    the sound of an mp3 there; and it asks for the end, which a FLAC file may state wrongly.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Opens a sound file for sequential reading, in blocks of any size.

    An mp3 that is longer than stated gets its true length.

    Raises:
      UserError: An mp3 lacks frames, or a wav states less than it holds.
      OSError: The file cannot be read.
      RuntimeError: libsndfile cannot decode it.
    """
    # Given a name, libsndfile would also open the "._name" that macOS leaves, and fail.
    with path.open("rb") as file:
        with _Sequential(file) as sound:
            if sound.format in ("WAV", "WAVEX"):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    _check_wav(path, content)
            if sound.format != "MP3":
                yield sound
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                longer = _with_length(path, content, sound.frames)
            if longer is None:
                yield sound
                return
        with _Sequential(io.BytesIO(longer)) as sound:
            yield sound


def _check_wav(path: Path, content: mmap.mmap) -> None:
    """Raises UserError if what follows the sound of a wav is no chunk but more sound."""
    at = 12  # after "RIFF", a size and "WAVE"
    while content[:4] == b"RIFF" and at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if name == b"data" and (size == 0 or end < len(content)):
            after = content[end : end + 8]
            behind = len(content) - end
            fits = int.from_bytes(after[4:], "little") <= behind
            is_chunk = after[:4].isascii() and after[:4].isalnum() and fits
            if behind > 8 and not is_chunk and content[end:].strip(b"\0"):
                raise UserError(
                    f"{path} is damaged: its header states {size} bytes of sound, but {behind} "
                    "more follow, as when a recorder is switched off; write it again, such as "
                    "with ffmpeg -ignore_length 1 -i OLD NEW."
                )
        at = end


def _with_length(path: Path, content: mmap.mmap, stated: int) -> bytes | None:
    """Returns an mp3 that states its number of frames; None if `stated` samples may be all.

    Raises:
      UserError: Frames are missing.
    """
    starts, gap = _frame_starts(content)
    if len(starts) < 2:
        return None
    head = content[starts[0] : starts[0] + 64]
    counted = 0
    if any(name in head for name in (b"Xing", b"Info", b"VBRI")):  # that frame holds no sound
        counted = _frames_counted(head)
        del starts[0]
    first = content[starts[0] : starts[0] + 4]
    header = _header(first)
    assert header is not None
    if gap is not None or counted > len(starts) + _MISSING:
        what = f"states {counted} frames and holds {len(starts)}"
        if gap is not None:
            what = f"has bytes that are no frames after {gap * header.samples / header.rate:.1f} s"
        raise UserError(
            f"{path} is damaged: it {what}, so that sound is missing and what follows would be "
            "out of time; get the file again."
        )
    if len(starts) * header.samples <= stated + _PADDING + 2 * header.samples:
        return None
    return _length_frame(first, len(starts)) + content[starts[0] :]


def _length_frame(first: bytes, count: int) -> bytes:
    """Returns a "Xing" frame that states a number of frames, to put before them."""
    # The highest bit rate gives it room; without padding and checksum.
    fields = bytes([255, first[1] | 1, 14 << 4 | first[2] & 0b1100, first[3]])
    header = _header(fields)
    assert header is not None
    mono = first[3] >> 6 == 3
    side = (17 if mono else 32) if header.mpeg == 3 else (9 if mono else 17)
    length = fields + bytes(side) + b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return length.ljust(header.size, b"\0")


def _frames_counted(head: bytes) -> int:
    """Returns the number of frames that a "Xing" or "Info" frame states; 0 if it states none."""
    at = max(head.find(name) for name in (b"Xing", b"Info"))
    flags = head[at + 4 : at + 8]
    if at < 0 or len(flags) < 4 or not flags[3] & 1:
        return 0
    return int.from_bytes(head[at + 8 : at + 12], "big")


def _frame_starts(content: bytes | mmap.mmap) -> tuple[list[int], int | None]:
    """Returns the positions of the whole frames of one stream; other bytes are skipped.

    Also returns the number of frames before the first bytes in between that are neither frames nor
    tags; None if there are none.
    """
    at = 0
    while content[at : at + 3] == b"ID3":
        size = content[at + 6 : at + 10].ljust(4, b"\0")
        at += 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(size)))
    starts: list[int] = []
    stream, in_step, gap = None, False, None
    out_of_step = 0
    while 0 <= at < len(content):
        header = _header(content[at : at + 4])
        if header is not None and header.continues(stream):
            end = at + header.size
            after = _header(content[end : end + 4])
            # Other bytes may look like a header, but rarely like two that are one frame apart.
            if end <= len(content) and (in_step or (after and after.continues(header))):
                if starts and not in_step and gap is None:
                    skipped = content[out_of_step : out_of_step + len(max(_TAGS, key=len))]
                    if not skipped.startswith(_TAGS):
                        gap = len(starts)
                starts.append(at)
                stream, in_step, at = header, True, end
                continue
        if in_step:
            out_of_step = at
        in_step = False
        at = content.find(b"\xff", at + 1)
    return starts, gap


def _header(four: bytes) -> _Header | None:
    """Parses the header of a layer III frame of known size; returns None for anything else."""
    if len(four) < 4 or four[0] != 255 or four[1] & 0b11100110 != 0b11100010:
        return None
    mpeg = four[1] >> 3 & 3
    kbit, rate = _KBIT[mpeg == 3][four[2] >> 4], _RATES[four[2] >> 2 & 3]
    if mpeg not in _RATE_DIVISORS or not kbit or not rate:
        return None
    rate //= _RATE_DIVISORS[mpeg]
    size = (144 if mpeg == 3 else 72) * kbit * 1000 // rate + (four[2] >> 1 & 1)
    return _Header(mpeg, rate, size)
