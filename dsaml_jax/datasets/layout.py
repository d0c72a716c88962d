"""Locating files in a data set's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import soundfile

from dsaml_jax.datasets.journal import Journal
from dsaml_jax.errors import UserError

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg")

_DEPTH = 3  # levels of folders below the root that are searched


def existing_root(root: str | Path, data_set: str) -> Path:
    """Returns the root as an absolute path.

    Raises:
      UserError: It is not a folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; data.root must be the folder that contains {data_set}.")
    return path.resolve()


def find(root: Path, landmark: str) -> Path | None:
    """Returns the shallowest path below `root` that ends in `landmark`, or None.

    This finds a data set that was unzipped into a folder of its own below `root`.

    Raises:
      UserError: Two such paths are equally deep.
    """
    level = [root]
    for _ in range(_DEPTH + 1):
        hits = [folder / landmark for folder in level if (folder / landmark).exists()]
        if len(hits) > 1:
            raise UserError(
                f"{root} contains '{landmark}' twice, in {hits[0]} and in {hits[1]}; set data.root "
                "to the folder of the one to use."
            )
        if hits:
            return hits[0]
        level = [child for folder in level for child in _subfolders(folder)]
    return None


def require(root: Path, data_set: str, landmarks: tuple[str, ...]) -> Path:
    """Returns the first of `landmarks` that `find` finds.

    Raises:
      UserError: None of them exists.
    """
    for landmark in landmarks:
        path = find(root, landmark)
        if path is not None:
            return path
    expected = " or ".join(f"'{landmark}'" for landmark in landmarks)
    raise UserError(
        f"{root} is not {data_set}: expected {expected} in it or up to {_DEPTH} levels below it; "
        "set data.root to the data set's folder."
    )


def files(folder: Path | None, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yields the files in `folder` with one of `suffixes`, sorted, without hidden files."""
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def by_song(journal: Journal, paths: Iterator[Path], what: str) -> dict[str, Path]:
    """Returns files by song id, which is the file name without suffix and leading zeros.

    A second file for one song is a problem; the first by name is used.
    """
    found: dict[str, Path] = {}
    for path in paths:
        song_id = plain_id(path.stem)
        if song_id in found:
            journal.problem(
                "two files for one song",
                journal.name(path),
                f"a second {what} of song {song_id}, beside {found[song_id].name}, which is used",
            )
        else:
            found[song_id] = path
    return found


def pairs(
    journal: Journal, arousal: dict[str, Path], valence: dict[str, Path]
) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """Yields (song id, files of both dimensions); a song with only one of them is a problem."""
    for song_id in sorted(arousal.keys() | valence.keys()):
        if song_id in arousal and song_id in valence:
            yield song_id, (arousal[song_id], valence[song_id])
        else:
            journal.problem(
                "rated in one dimension only",
                journal.name(arousal.get(song_id) or valence[song_id]),
                "the file of the other dimension is missing; its ratings are left out",
            )


def plain_id(text: str) -> str:
    """Returns a song id in its canonical form: no surrounding blanks, no leading zeros."""
    text = text.strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text


def audio_seconds(path: Path) -> float | None:
    """Returns the length given in the file's header; None if the header cannot be read.

    Only decoding can tell whether the audio itself is intact.
    """
    try:
        with path.open("rb") as file:  # given a name, libsndfile fails on macOS "._name" files
            return float(soundfile.info(file).duration)
    except (RuntimeError, OSError):
        return None


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:  # no permission to list this folder: skip it
        return []
    return [c for c in children if c.is_dir() and not c.name.startswith((".", "__MACOSX"))]
