"""Where things lie in a data set's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import soundfile

from dsaml_jax.datasets.journal import Journal
from dsaml_jax.errors import UserError

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg")

_DEPTH = 3  # folders below the root that are searched


def existing_root(root: str | Path, data_set: str) -> Path:
    """The root as an absolute path.

    Raises:
      UserError: it is not a folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; the root must be the folder that holds {data_set}.")
    return path.resolve()


def find(root: Path, landmark: str) -> Path | None:
    """The path ending in `landmark` that lies least deep below `root`, or None.

    A data set that was unzipped into a folder of its own is so found from the folder above.

    Raises:
      UserError: two lie equally deep.
    """
    level = [root]
    for _ in range(_DEPTH + 1):
        hits = [folder / landmark for folder in level if (folder / landmark).exists()]
        if len(hits) > 1:
            raise UserError(
                f"{root} holds '{landmark}' twice, in {hits[0]} and in {hits[1]}; give the folder "
                "of the one that is meant."
            )
        if hits:
            return hits[0]
        level = [child for folder in level for child in _subfolders(folder)]
    return None


def require(root: Path, data_set: str, landmarks: tuple[str, ...]) -> Path:
    """The first of `landmarks` that `find` finds.

    Raises:
      UserError: none is there.
    """
    for landmark in landmarks:
        path = find(root, landmark)
        if path is not None:
            return path
    expected = " or ".join(f"'{landmark}'" for landmark in landmarks)
    raise UserError(
        f"{root} is not {data_set}: expected {expected} in it or up to {_DEPTH} folders below it."
    )


def files(folder: Path | None, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files in `folder` with one of `suffixes`, sorted, without hidden ones."""
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def by_song(journal: Journal, paths: Iterator[Path], what: str) -> dict[str, Path]:
    """Files by song id, the id being the file's name without suffix and leading zeros.

    Two files for one song are a problem; the first by name is taken.
    """
    found: dict[str, Path] = {}
    for path in paths:
        song_id = plain_id(path.stem)
        if song_id in found:
            journal.problem(
                "two files for one song",
                journal.name(path),
                f"a second {what} of song {song_id}, beside {found[song_id].name}, which is taken",
            )
        else:
            found[song_id] = path
    return found


def plain_id(text: str) -> str:
    """A song id as it is compared: blanks and the leading zeros of a number gone."""
    text = text.strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text


def audio_seconds(path: Path) -> float | None:
    """Length by the file's header; None where the header cannot be read.

    Whether the sound itself can be decoded is for the decoder to find out.
    """
    try:
        with path.open("rb") as file:  # by name, libsndfile trips over "._name" files of macOS
            return float(soundfile.info(file).duration)
    except (RuntimeError, OSError):
        return None


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:  # no permission: what we may not list, we cannot find
        return []
    return [c for c in children if c.is_dir() and not c.name.startswith((".", "__MACOSX"))]
