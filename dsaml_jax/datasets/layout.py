"""Locating files in a data set's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dsaml_jax.audio import sound_file
from dsaml_jax.datasets import report, tree
from dsaml_jax.datasets.ids import plain_id
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import is_utf8

_UNKNOWN = 2**63 - 1  # samples that libsndfile states for a FLAC file without its length
_DEPTH = 3  # levels of folders below the root that are searched


def existing_root(root: str | Path, data_set: str) -> Path:
    """Returns the root as an absolute path.

    Raises:
      UserError: It is not a folder, or its name is not UTF-8.
    """
    path = Path(root).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # no permission, a name that is too long, a NUL
        is_folder = exists = False
    if not is_folder:
        what = "is a file" if exists else "does not exist"
        raise UserError(f"{path} {what}; data.root must be the folder that contains {data_set}.")
    path = path.resolve()
    if not is_utf8(str(path)):
        raise UserError(f"{report.printable(str(path))} is not UTF-8; rename the folder.")
    return path


def open_root(root: str | Path, data_set: str, options: ReadOptions) -> Journal:
    """Returns a journal of the folder; names in it that are not UTF-8 are recorded as problems.

    Raises:
      UserError: As `existing_root`; a link leads to a folder that contains it; or, if strict, a
        name is not UTF-8.
    """
    journal = Journal(data_set, existing_root(root, data_set), options)
    for entry in tree.walk(journal.root):
        if not is_utf8(entry.path.name):
            journal.problem(
                "a name that is not UTF-8",
                journal.name(entry.path),
                "the name is not UTF-8; it is left out: rename it",
            )
    return journal


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
    """Yields the files in `folder` with one of `suffixes`, sorted, without hidden files.

    Raises:
      UserError: The folder cannot be listed.
    """
    if folder is None or not folder.is_dir():
        return
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}.") from error
    for path in children:
        if path.suffix.lower() in suffixes and _is_seen(path.name) and path.is_file():
            yield path


def by_song(
    journal: Journal, paths: Iterator[Path], what: str, ending: str = ""
) -> dict[str, Path]:
    """Returns files by song id, the `plain_id` of the file name without its suffix.

    A second file for one song is a problem; the first by name is used.
    """
    by_id: dict[str, Path] = {}
    for path in paths:
        song_id = plain_id(path.stem.removesuffix(ending))
        if not path.stem.endswith(ending) or not song_id:
            expected = f"expected a name that ends in {ending}.csv" if ending else "no song id"
            journal.problem(
                "unexpected file name", journal.name(path), f"{expected}; the file is ignored"
            )
        elif song_id in by_id:
            journal.problem(
                "two files for one song",
                journal.name(path),
                f"a second {what} of song {song_id}, beside {by_id[song_id].name}, which is used",
            )
        else:
            by_id[song_id] = path
    return by_id


def pairs(
    journal: Journal, arousal: Mapping[str, Path], valence: Mapping[str, Path]
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


def audio_seconds(path: Path) -> float | None:
    """Returns the length in the file's header, or that of an mp3's frames if it is longer.

    It is None if the header cannot be read or states no length. Only decoding shows whether the
    audio itself is intact.
    """
    try:
        with sound_file.opened(path) as sound:
            return None if sound.frames == _UNKNOWN else sound.frames / sound.samplerate
    except (RuntimeError, OSError):
        return None


def _subfolders(folder: Path) -> list[Path]:
    return [child for child in tree.children(folder) if _is_seen(child.name) and child.is_dir()]


def _is_seen(name: str) -> bool:
    return not tree.ignored(name) and is_utf8(name)
