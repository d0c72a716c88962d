"""Listeners on disk: a folder with what differs from the shared model, and how to find that.

    personal.json            the shared model's hash and place, what was adapted to, the file below
    personal-HASH.npz        the adapted weights, named by their paths

The weights are written first and `personal.json` is replaced last, in one step: an interruption
leaves the listener that was there before.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.errors import UserError
from dsaml_jax.personal.export import MODEL, open_export, write_arrays
from dsaml_jax.personal.listener import Listener, RatedSong
from dsaml_jax.personal.shared import SharedModel, flat, open_release, open_run, unflat
from dsaml_jax.runtime.arrays import read_arrays
from dsaml_jax.runtime.files import cannot_write, read_json_object, write_json

FORMAT = "dsaml_jax listener 1"
LISTENER = "personal.json"
_REMEDY = "run --mode=personalize again"


def open_listener(
    path: Path,
    shared: str | Path | None = None,
    experiment: Experiment | None = None,
    embedding_weights: str = "",
) -> Listener:
    """Opens whatever can be predicted with; see `Listener.open`."""
    if (path / LISTENER).exists():
        return _saved(path, shared, experiment, embedding_weights)
    if shared is not None:
        raise UserError(
            f"{path} is no listener's folder, so --shared={shared} has no meaning; remove it."
        )
    return Listener(open_shared(path, experiment, embedding_weights))


def open_shared(
    path: Path, experiment: Experiment | None = None, embedding_weights: str = ""
) -> SharedModel:
    """Opens a run's workdir, an exported folder, or a `.pt` of the release.

    Raises:
      UserError: there is none, or it is damaged or unfinished.
    """
    if path.is_file():
        return open_release(path, experiment, embedding_weights)
    if (path / MODEL).exists():
        return open_export(path, embedding_weights)
    if (path / "config.json").exists():
        return open_run(path, embedding_weights)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the workdir of a finished run.")
    raise UserError(
        f"{path} holds no model; expected a run's workdir (config.json), an exported folder "
        f"({MODEL}), a listener's folder ({LISTENER}), or a .pt file of the release."
    )


def save_listener(listener: Listener, folder: Path) -> None:
    """Writes a listener; one that is there is replaced.

    Raises:
      UserError: it is not adapted, the folder holds something else, or it cannot be written.
    """
    if listener.adapted is None:
        raise UserError("The listener is not adapted, so there is nothing to save; adapt it first.")
    check_vacant(folder)
    arrays = flat(listener.adapted)
    name = f"personal-{listener.hash[:16]}.npz"
    write_arrays(folder / name, arrays)
    content = {
        "format": FORMAT,
        "shared": {
            "hash": listener.shared.hash,
            "path": str(Path(listener.shared.source).absolute()),
        },
        "weights": {"file": name, "sha256": _file_hash(folder / name)},
        "songs": [dataclasses.asdict(song) for song in listener.songs],
        "losses": listener.losses,
    }
    write_json(folder / LISTENER, content)
    for old in folder.glob("personal-*.npz"):
        if old.name != name:
            old.unlink(missing_ok=True)


def check_vacant(folder: Path) -> None:
    """Raises UserError unless a folder is new, is empty, or holds a listener."""
    try:
        there = folder.exists() and not (folder / LISTENER).exists()
        if there and (not folder.is_dir() or any(_not_ours(path) for path in folder.iterdir())):
            raise UserError(
                f"{folder} holds something else than a listener; choose another --workdir."
            )
    except OSError as error:
        raise cannot_write(folder, error, "choose another --workdir") from error


def _not_ours(path: Path) -> bool:
    return not path.name.startswith("personal")


def _saved(
    folder: Path, moved: str | Path | None, experiment: Experiment | None, embedding_weights: str
) -> Listener:
    content = _read(folder)
    try:
        recorded, weights = content["shared"], content["weights"]
        file, seal = Path(weights["file"]).name, weights["sha256"]
        place, shared_hash = Path(recorded["path"]), recorded["hash"]
        songs = tuple(
            RatedSong(**{**song, "notes": tuple(song["notes"])}) for song in content["songs"]
        )
        losses = tuple(float(loss) for loss in content["losses"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / LISTENER} is damaged (no valid {error}); {_REMEDY}.") from error
    source = Path(moved) if moved is not None else place
    if not source.exists():
        raise UserError(
            f"{folder} was adapted from the model {source}, which does not exist; say where it is "
            "now with --shared=PATH."
        )
    shared = open_shared(source, experiment, embedding_weights)
    if shared.hash != shared_hash:
        raise UserError(
            f"{folder} was adapted from another model than {source} (hash {shared_hash[:12]}, this "
            f"one has {shared.hash[:12]}): give that one with --shared=PATH, or {_REMEDY}."
        )
    path = folder / file
    arrays = read_arrays(path, remedy=_REMEDY)
    if _file_hash(path) != seal:
        raise UserError(f"{path} has changed since it was written; {_REMEDY}.")
    expected, _ = shared.inner.loop().partition(shared.checked_meta().params)
    return Listener(shared, unflat(arrays, expected, path), songs, losses)


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = read_json_object(folder / LISTENER)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder / LISTENER} cannot be read ({reason}); {_REMEDY}.") from error
    if content.get("format") != FORMAT:
        raise UserError(
            f"{folder / LISTENER} has the format {str(content.get('format'))[:60]!r}; expected "
            f"{FORMAT!r}: {_REMEDY} with this version."
        )
    return content


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
