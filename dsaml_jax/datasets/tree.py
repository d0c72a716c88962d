"""Traversal of a data set's folder, and a digest of its contents."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import is_utf8

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg")
MIDI_SUFFIXES = (".mid", ".midi")
LABEL_SUFFIXES = (".csv", ".json", ".parquet")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder below the root.

    Attributes:
      path: Its path, through the links that lead to it.
      stat: Status of the file or folder; of a link, the status of its target.
      same_as: The path under which the same folder was entered before, or None.
    """

    path: Path
    stat: os.stat_result
    same_as: Path | None = None


def ignored(name: str) -> bool:
    """Returns whether a name is a hidden file's or a temporary one's of macOS or Office."""
    return name.startswith((".", "~$", "__MACOSX"))


def walk(root: Path) -> Iterator[Entry]:
    """Yields all files and folders below `root`, sorted, following links.

    Ignored names and broken links are left out. Folders without read permission, and those whose
    names are not UTF-8, are yielded but not entered. A folder that several links lead to is entered
    once.

    Raises:
      UserError: A link leads to a folder that contains it.
    """
    top = root.stat()
    pending = [(root, {(top.st_dev, top.st_ino): root})]
    entered = dict(pending[0][1])
    while pending:
        folder, ancestors = pending.pop()
        inner = []
        for path in children(folder):
            try:
                stat = path.stat()
            except OSError:  # a broken link
                continue
            key = (stat.st_dev, stat.st_ino)
            if not S_ISDIR(stat.st_mode):
                yield Entry(path, stat)
                continue
            if key in ancestors:
                link = next(each for each in (path, *path.parents) if each.is_symlink())
                raise UserError(
                    f"{link} is a link to {ancestors[key]}, the folder that contains it; remove "
                    "the link."
                )
            yield Entry(path, stat, entered.get(key))
            if key not in entered and is_utf8(path.name):
                entered[key] = path
                inner.append((path, ancestors | {key: path}))
        pending += reversed(inner)


def digest(root: Path, *context: str) -> str:
    """Hashes what readers use of `root`: names, contents of tables, sizes and times of audio.

    Args:
      root: The data set's folder.
      context: Other inputs that determine what is read, such as options.
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
            continue  # readers neither use nor report it
        total.update(name + f" {state}\n".encode())
    return total.hexdigest()


def children(folder: Path) -> list[Path]:
    """Returns the sorted contents of a folder without ignored names; [] if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not ignored(path.name))
    except OSError:
        return []


def _content(entry: Entry) -> str:
    try:
        with entry.path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:  # the reader reports it; it may be readable next time
        return str(entry.stat.st_mtime_ns)
