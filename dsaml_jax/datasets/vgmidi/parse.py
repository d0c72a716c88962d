"""The reader of VGMIDI's labeled part.

Layout (Ferreira and Whitehead 2019), up to three levels below the root:

    annotations/vgmidi_raw_{1,2}.json      (in the repository: labeled/annotations/...)
    midi/{name}.mid                        (next to annotations/)

`annotations["piece0_1"]` is rater 1 of piece 0: one valence and one arousal per bar in [-1, 1], the
rater's profile and free-text answers. All bars of a piece have the same share of its `duration`.
Raters have no ids; see `raters`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dsaml_jax.datasets import layout, ratings, report, resample, tables, tree
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.schema import DIMENSIONS, RATING_HZ, Rating, Song
from dsaml_jax.datasets.vgmidi import raters
from dsaml_jax.runtime.files import read_json_object

NAME = "VGMIDI"
SETS = (1, 2)
_SCALE = (-1.0, 1.0)
_LONGEST_S = 3600.0  # beyond this the unit must be another one, such as milliseconds
_LONGEST_BAR_S = 60.0
_SHORTEST_BAR_S = 0.2


def read(
    root: str | Path, options: ReadOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """Reads all pieces with usable ratings, ordered by id, and the findings.

    A piece's id consists of its set and its name, "1_piece0". It has its raters' ratings at two per
    second, followed by their mean as annotator "all"; its audio is the MIDI file, which
    `dsaml_jax.audio.midi` renders. Annotations of pieces that do not exist are dropped and counted.
    Of the answers only a hash is kept, as the rater's id.

    Raises:
      UserError: The root is not VGMIDI's; no annotation is usable; no piece has both ratings and
        MIDI although audio is required; or, if strict, any problem.
    """
    options = options or ReadOptions()
    journal = layout.open_root(root, NAME, options)
    root = journal.root
    first = layout.require(
        root, NAME, tuple(f"annotations/vgmidi_raw_{number}.json" for number in SETS)
    )
    folder = first.parent.parent / "midi"
    midi = {path.name: path for path in layout.files(folder, tree.MIDI_SUFFIXES)}
    songs: list[Song] = []
    used: set[str] = set()
    for number in SETS:
        path = first.parent / f"vgmidi_raw_{number}.json"
        if not path.exists():
            journal.count(f"set {number} is absent")
            continue
        try:
            pieces, annotations = _parts(path)
        except tables.TableFault as fault:
            what = f"{fault.what}; set {number} is left out"
            journal.problem("a file that cannot be used", journal.name(path), what)
            continue
        rated = _rated(journal, path, pieces, annotations)
        for name in sorted(rated, key=lambda name: (len(name), name)):
            file = _text(pieces[name], "midi")
            used.add(file)
            people = ratings.one_each(journal, f"{journal.name(path)}, {name}", rated[name])
            songs.append(
                ratings.song_with_audio(
                    journal,
                    f"{number}_{name}",
                    [*people, ratings.consensus(people)],
                    0.0,
                    midi.get(file),
                    duration_s=float(pieces[name]["duration"]),
                    texts={"title": _text(pieces[name], "name")},
                )
            )
    _count_pieces_each(journal, songs)
    unused = sorted(midi.keys() - used)
    ids = [song.song_id for song in songs if song.audio] + unused
    return journal.close(songs, ids, "midi/{name}.mid")


def _rated(
    journal: Journal, path: Path, pieces: dict[str, Any], annotations: dict[str, Any]
) -> dict[str, list[Rating]]:
    rated: dict[str, list[Rating]] = {}
    known = raters.identify(annotations)
    durations: dict[str, float | None] = {}
    journal.count(f"annotations in {path.name}", len(annotations))
    journal.rows_read += len(annotations)
    journal.count(f"pieces in {path.name}", len(pieces))
    for key, annotation in annotations.items():
        name = key.rpartition("_")[0]
        where = f"{journal.name(path)}, annotation {key}"
        if name not in pieces:
            journal.drop("the piece does not exist", where, rows=1)
            continue
        if not ratings.song(journal, where, name):
            continue
        if name not in durations:
            durations[name] = _duration(
                journal, f"{journal.name(path)}, piece {name}", pieces[name]
            )
        duration = durations[name]
        if key not in known:
            journal.drop("the rater cannot be identified", where, rows=1)
            continue
        if duration is None:
            journal.drop("the piece has no usable duration", where, rows=1)
            continue
        values = {dimension: annotation.get(dimension) for dimension in DIMENSIONS}
        curve = ratings.checked_curve(journal, where, values, _SCALE)
        if curve is None:
            continue
        if len(curve) != pieces[name].get("measures", len(curve)):
            journal.count("annotations with another number of values than the piece has bars")
        bars = max(len(values[dimension]) for dimension in DIMENSIONS)
        # Bars missing at the end do not stretch those before them.
        curve = resample.from_bars(curve, duration * len(curve) / bars)
        if not len(curve):
            journal.drop("shorter than half a second", where, rows=1)
            continue
        rated.setdefault(name, []).append(Rating(known[key], curve))
    return rated


def _duration(journal: Journal, where: str, piece: dict[str, Any]) -> float | None:
    duration = ratings.as_number(piece.get("duration"))
    bars = ratings.as_number(piece.get("measures"))
    if bars is not None and not 1 <= bars < math.inf:
        what = (
            f"measures is {ratings.shown(piece.get('measures'))}, expected a number of bars, at "
            "least 1; its annotations are left out"
        )
        journal.problem("no duration", where, what)
        return None
    longest = _LONGEST_S if bars is None else min(_LONGEST_S, bars * _LONGEST_BAR_S)
    shortest = max(1 / RATING_HZ, 0 if bars is None else min(bars * _SHORTEST_BAR_S, longest))
    if duration is not None and shortest <= duration <= longest:
        return duration
    what = (
        f"duration is {ratings.shown(piece.get('duration'))}, expected seconds, from "
        f"{shortest:g} to {longest:g}; its annotations are left out"
    )
    journal.problem("no duration", where, what)
    return None


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = read_json_object(path)
    except (OSError, ValueError) as error:
        raise tables.TableFault(path, f"cannot be read as JSON: {error}") from error
    for name in ("pieces", "annotations"):
        part = content.get(name)
        if not isinstance(part, dict) or not all(isinstance(v, dict) for v in part.values()):
            raise tables.TableFault(
                path,
                f"has no object '{name}' of objects, as VGMIDI's files do; restore it from the "
                "download",
            )
    return content["pieces"], content["annotations"]


def _text(piece: dict[str, Any], field: str) -> str:
    text = piece.get(field)
    return text if isinstance(text, str) else ""


def _count_pieces_each(journal: Journal, songs: list[Song]) -> None:
    pieces = raters.pieces_each(songs)
    for number in sorted(set(pieces.values())):
        same = sum(count == number for count in pieces.values())
        journal.count(f"raters of {number} piece{'s' if number > 1 else ''}", same)
