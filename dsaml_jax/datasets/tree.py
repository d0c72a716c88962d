"""Walking a data set's folder: what is read, and therefore hashed, and what else is found there."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import is_utf8

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg")
MIDI_SUFFIXES = (".mid", ".midi")
LABEL_SUFFIXES = (".csv", ".json", ".parquet")

_OTHER_AUDIO = (".m4a", ".aac", ".mp4", ".wma", ".opus", ".aif", ".aiff", ".webm", ".ape", ".mka")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_PER_CLUE = 3


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder below the root.

    Attributes:
      path: Its path, through the links that lead to it.
      stat: What it, or the target of the link, is.
      same_as: The path under which the same folder was entered before; None if it was not.
    """

    path: Path
    stat: os.stat_result
    same_as: Path | None = None


def ignored(name: str) -> bool:
    """Returns whether a name is a hidden file's, or one that macOS or Office leaves behind."""
    return name.startswith((".", "~$", "__MACOSX"))


def walk(root: Path) -> Iterator[Entry]:
    """Yields all files and folders below `root`, sorted, following links.

    Ignored names and broken links are left out, and folders that must not be listed are not
    entered. A folder that several links lead to is entered once. Nothing below a name that is not
    UTF-8 is yielded.

    Raises:
      UserError: A link leads to a folder that contains it.
    """
    top = root.stat()
    pending = [(root, {(top.st_dev, top.st_ino): root})]
    entered = dict(pending[0][1])
    while pending:
        folder, ancestors = pending.pop()
        inner = []
        for path in _children(folder):
            try:
                stat = path.stat()
            except OSError:  # a broken link
                continue
            key = (stat.st_dev, stat.st_ino)
            if not S_ISDIR(stat.st_mode):
                yield Entry(path, stat)
                continue
            if key in ancestors:
                raise UserError(
                    f"{path} is a link to {ancestors[key]}, the folder that contains it; remove "
                    "the link."
                )
            yield Entry(path, stat, entered.get(key))
            if key not in entered and is_utf8(path.name):
                entered[key] = path
                inner.append((path, ancestors | {key: path}))
        pending += reversed(inner)


def digest(root: Path, *context: str) -> str:
    """Hashes what a reader of `root` can read: names, contents of tables, sizes and times of audio.

    Args:
      root: The data set's folder.
      context: Whatever else determines the result.
    """
    total = hashlib.blake2b("\n".join([str(root), *context, ""]).encode(), digest_size=6)
    for entry in walk(root):
        name = os.fsencode(entry.path.relative_to(root))
        suffix = entry.path.suffix.lower()
        state = ""
        if entry.same_as is not None:
            state = f"as {entry.same_as.relative_to(root)}"
        elif suffix in LABEL_SUFFIXES and S_ISREG(entry.stat.st_mode):
            state = f"{entry.stat.st_size} {_content(entry)}"
        elif suffix in AUDIO_SUFFIXES + MIDI_SUFFIXES:
            state = f"{entry.stat.st_size} {entry.stat.st_mtime_ns}"
        elif is_utf8(entry.path.name):
            continue  # neither read nor told
        total.update(name + f" {state}\n".encode())
    return total.hexdigest()


def instead_of_audio(root: Path, audio_ids: Collection[str], song_ids: Collection[str]) -> str:
    """Describes what a folder contains where no rated song has audio; "" if that is nothing.

    Args:
      root: The data set's folder.
      audio_ids: Ids of the audio files that were found where they were expected.
      song_ids: Ids of the rated songs.
    """
    usable: collections.Counter[str] = collections.Counter()
    foreign: collections.Counter[str] = collections.Counter()
    archives = []
    for entry in walk(root):
        suffix = entry.path.suffix.lower()
        place = _readable(entry.path.parent.relative_to(root))
        if suffix in AUDIO_SUFFIXES + MIDI_SUFFIXES:
            usable[f"{suffix} files in {place}"] += 1
        elif suffix in _OTHER_AUDIO:
            foreign[f"{suffix} files in {place}"] += 1
        elif suffix in _ARCHIVES:
            archives.append(_readable(entry.path.relative_to(root)))
    clues = []
    if foreign:
        clues.append(f"{_counted(foreign)} (convert them to {', '.join(AUDIO_SUFFIXES)})")
    if archives:
        clues.append(f"{_shortened(archives)} (unpack it)")
    if audio_ids:
        clues.append(
            f"files named {_shortened(sorted(audio_ids))}, where the rated songs are named "
            f"{_shortened(sorted(song_ids))}"
        )
    elif usable:
        clues.append(f"{_counted(usable)} (move them)")
    return "; ".join(clues)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not ignored(path.name))
    except OSError:  # no permission to list this folder
        return []


def _content(entry: Entry) -> str:
    try:
        with entry.path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:  # whoever reads it says so; another time it may be readable
        return str(entry.stat.st_mtime_ns)


def _counted(files: collections.Counter[str]) -> str:
    return _shortened([f"{number} {name}" for name, number in files.items()])


def _shortened(names: list[str]) -> str:
    more = len(names) - _PER_CLUE
    return ", ".join(names[:_PER_CLUE]) + (f" and {more} more" if more > 0 else "")


def _readable(path: Path) -> str:
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
