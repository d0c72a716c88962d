"""--mode=predict: curves of songs as CSV, JSON and PNG; what is done is not done again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dsaml_jax.audio.decoding import audio_hash
from dsaml_jax.commands.options import ListenerOptions, audio_files
from dsaml_jax.errors import UserError
from dsaml_jax.personal import Curves, Listener
from dsaml_jax.personal.sound import Span, whole_span
from dsaml_jax.reports.songs import SongCurves, song_figure
from dsaml_jax.runtime.files import (
    PARTIAL,
    CannotWrite,
    cannot_write,
    locked,
    write_json,
    write_text,
)

JOURNAL, CURVES = "predicted.jsonl", "curves.json"

_GROUP = 16
"""Songs whose windows share calls of the network, at most."""

_MANY = 8
"""So many songs are worth a process on each core."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A song that is predicted, as the journal records it.

    Attributes:
      key: hash of the listener, of the sound, and of the part of it that was asked for.
      model: hash of the listener.
      audio: the file.
      name: of the CSV and the PNG, without suffix.
      csv: hash of the CSV.
    """

    key: str
    model: str
    audio: str
    name: str
    csv: str

    def is_whole(self, folder: Path) -> bool:
        """Returns whether the files are there, and the CSV as it was written."""
        csv = folder / f"{self.name}.csv"
        png = folder / f"{self.name}.png"
        return csv.is_file() and png.is_file() and _hash(csv.read_bytes()) == self.csv


def predict(options: ListenerOptions) -> str:
    """Predicts songs; writes NAME.csv and NAME.png for each, and `curves.json` of all.

    A song that cannot be used is reported at the end; the others are predicted.

    Returns:
      What was done.

    Raises:
      UserError: a flag is missing or wrong, a song could not be predicted, or the folder holds
        another model's curves.
    """
    options.need("predict", "checkpoint", "audio", "workdir")
    songs = audio_files(options.audio)
    listener = Listener.open(
        options.checkpoint,
        shared=options.shared or None,
        experiment=options.experiment,
        embedding_weights=options.embedding_weights,
        processes=0 if len(songs) >= _MANY else 1,
    )
    folder = Path(options.workdir)
    with locked(folder / ".lock", "choose another --workdir"):
        return _predict(options, listener, folder, songs)


def _predict(
    options: ListenerOptions, listener: Listener, folder: Path, songs: Sequence[str]
) -> str:
    for partial in folder.glob(f"*{PARTIAL}"):  # left by a process that was killed
        partial.unlink(missing_ok=True)
    journal = read_journal(folder)
    others = {done.model for done in journal.values()} - {listener.hash}
    if others:
        raise UserError(
            f"{folder} holds curves of another model (hash {min(others)[:12]}, this one has "
            f"{listener.hash[:12]}); choose another --workdir."
        )
    faults: dict[str, str] = {}
    todo: list[tuple[str, str]] = []
    embedded_with = listener.source().weights_hash()
    for song in songs:
        try:
            sound = audio_hash(song)
            parts = [listener.hash, embedded_with, sound, options.start_s, options.end_s]
        except UserError as error:
            faults[song] = str(error)
            continue
        key = _hash(json.dumps(parts).encode())
        before = journal.get(song)
        if before is None or before.key != key or not before.is_whole(folder):
            todo.append((song, key))
    already = len(songs) - len(todo) - len(faults)
    with tqdm(
        desc="predicting",
        total=len(todo),
        unit="song",
        disable=not sys.stderr.isatty(),
    ) as bar:
        for group in _groups(todo, _GROUP):
            for song, key, curves in _curves(listener, options, group, faults):
                if curves is not None:
                    done = _write(folder, journal, listener.hash, key, curves)
                    journal[song] = done
                bar.update()
    whole = {song: done for song, done in journal.items() if done.is_whole(folder)}
    write_json(folder / CURVES, _content(listener, folder, whole))
    counts = f"{len(todo) - _failed(todo, faults)} songs predicted, {already} were done before"
    if faults:
        first = next(iter(faults.values()))
        raise UserError(
            f"{len(faults)} of {len(songs)} songs could not be predicted; {counts}, in {folder}/. "
            + (first if len(faults) == 1 else " ".join(faults.values()))
        )
    whose = "the listener's and the population's" if listener.is_adapted else "the population's"
    return (
        f"{counts}; {whose} curves are in {folder}/: NAME.csv and NAME.png for each song, and "
        f"{CURVES} of all."
    )


def read_journal(folder: Path) -> dict[str, Done]:
    """Returns what was predicted in a folder, by audio file; a line that is cut off is ignored."""
    found = {}
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{folder / JOURNAL} cannot be read ({error.strerror}).") from error
    for line in lines:
        try:
            done = Done(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[done.audio] = done
    return found


def _curves(
    listener: Listener,
    options: ListenerOptions,
    group: Sequence[tuple[str, str]],
    faults: dict[str, str],
) -> Iterator[tuple[str, str, Curves | None]]:
    """Yields the curves of a group of songs; None, and a sentence in `faults`, if unusable."""
    spans: list[Span] = []
    usable: list[tuple[str, str]] = []
    for song, key in group:
        try:
            span = whole_span(song, listener.shared.audio, options.start_s, options.end_s)
        except UserError as error:
            faults[song] = str(error)
            yield song, key, None
            continue
        spans.append(span)
        usable.append((song, key))
    yielded = 0
    try:
        for curves in listener.predict_spans(spans):
            yielded += 1
            yield (*usable[yielded - 1], curves)
    except CannotWrite:
        raise
    except UserError as error:
        if len(usable) == 1:
            faults[usable[0][0]] = str(error)
            yield (*usable[0], None)
            return
        for each in usable[yielded:]:  # one at a time, to find which song it is
            yield from _curves(listener, options, [each], faults)


def _write(folder: Path, journal: dict[str, Done], model: str, key: str, curves: Curves) -> Done:
    """Writes a song's files, then records them."""
    before = journal.get(curves.song)
    taken = {done.name for song, done in journal.items() if song != curves.song}
    name = before.name if before else _free(Path(curves.song).stem[:200] or "song", taken)
    csv = curves.to_csv()
    write_text(folder / f"{name}.csv", csv)
    shown = SongCurves(curves.time_s, curves.population, curves.personal)
    song_figure(folder / f"{name}.png", Path(curves.song).name, shown)
    done = Done(key, model, curves.song, name, _hash(csv.encode()))
    try:
        with (folder / JOURNAL).open("a", encoding="utf-8") as file:
            if file.tell() and not _ends_with_newline(folder / JOURNAL):
                file.write("\n")
            file.write(json.dumps(dataclasses.asdict(done)) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(folder / JOURNAL, error) from error
    return done


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _free(stem: str, taken: set[str]) -> str:
    """Returns a name that no other song has, whatever the case of its letters."""
    lower = {name.lower() for name in taken}
    name, number = stem, 1
    while name.lower() in lower:
        number += 1
        name = f"{stem}-{number}"
    return name


def _content(listener: Listener, folder: Path, done: dict[str, Done]) -> dict[str, Any]:
    """Returns the content of `curves.json`: the columns of all CSVs."""
    songs = {}
    for song, each in sorted(done.items()):
        path = folder / f"{each.name}.csv"
        titles, *rows = path.read_text().splitlines()
        values = np.array([row.split(",") for row in rows], np.float64)
        columns = dict(zip(titles.split(","), values.T.tolist(), strict=True))
        songs[song] = {"csv": path.name, **columns}
    return {
        "model": listener.hash,
        "shared": listener.shared.hash,
        "adapted": listener.is_adapted,
        "adapted_to": [dataclasses.asdict(song) for song in listener.songs],
        "songs": songs,
    }


def _failed(todo: Sequence[tuple[str, str]], faults: dict[str, str]) -> int:
    return sum(song in faults for song, _ in todo)


def _groups(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
