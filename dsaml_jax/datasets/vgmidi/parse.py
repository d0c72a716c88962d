"""The reader of VGMIDI's labeled part.

Layout (Ferreira and Whitehead 2019), up to three levels below the root:

    annotations/vgmidi_raw_{1,2}.json      (in the repository: labeled/annotations/...)
    midi/{name}.mid                        (next to annotations/)

`annotations["piece0_1"]` is rater 1 of piece 0: one valence and one arousal per bar in [-1, 1], the
rater's profile and free-text answers. All bars of a piece have the same share of its `duration`.
Raters have no ids; see `raters`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsaml_jax.datasets import layout, ratings, report, resample
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.schema import RATING_HZ, Rating, Song
from dsaml_jax.datasets.vgmidi import raters
from dsaml_jax.errors import UserError

NAME = "VGMIDI"
SETS = (1, 2)
_SCALE = (-1.0, 1.0)
_LONGEST_S, _LONGEST_BAR_S = 3600.0, 60.0  # durations in milliseconds exceed one of them


def read(
    root: str | Path, options: ReadOptions | None = None
) -> tuple[list[Song], report.Findings]:
    """Reads all pieces with usable ratings, ordered by id, and the findings.

    A piece's id consists of its set and its name, "1_piece0". It has its raters' ratings at two per
    second, followed by their mean as annotator "all"; its audio is the MIDI file, which
    `dsaml_jax.audio.midi` renders. Annotations of pieces that do not exist are dropped and counted.
    Of the answers only a hash is kept, as the rater's id.

    Raises:
      UserError: The root is not VGMIDI's; a JSON file is invalid; no piece has both ratings and
        MIDI although audio is required; or, if strict, any problem.
    """
    options = options or ReadOptions()
    root = layout.existing_root(root, NAME)
    journal = Journal(NAME, root, options)
    first = layout.require(
        root, NAME, tuple(f"annotations/vgmidi_raw_{number}.json" for number in SETS)
    )
    folder = first.parent.parent / "midi"
    midi = {path.name: path for path in layout.files(folder, (".mid", ".midi"))}
    songs: list[Song] = []
    used: set[str] = set()
    for number in SETS:
        path = first.parent / f"vgmidi_raw_{number}.json"
        if not path.exists():
            journal.count(f"set {number} is absent")
            continue
        pieces, annotations = _parts(path)
        rated = _rated(journal, path, pieces, annotations)
        for name in sorted(rated, key=lambda name: (len(name), name)):
            file = str(pieces[name].get("midi"))
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
                    texts={"title": str(pieces[name].get("name", ""))},
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
    journal.count(f"pieces in {path.name}", len(pieces))
    for key, annotation in annotations.items():
        name = key.rpartition("_")[0]
        where = f"{journal.name(path)}, annotation {key}"
        if name not in pieces:
            journal.drop("the piece does not exist", where)
            continue
        if name not in durations:
            durations[name] = _duration(
                journal, f"{journal.name(path)}, piece {name}", pieces[name]
            )
        duration = durations[name]
        if key not in known:
            journal.drop("the rater cannot be identified", where)
            continue
        if duration is None:
            journal.drop("the piece has no usable duration", where)
            continue
        both = [
            ratings.checked(journal, f"{where}, {dimension}", annotation.get(dimension), _SCALE)
            for dimension in ("arousal", "valence")
        ]
        curve = ratings.joined(journal, where, both[0], both[1])
        if curve is None:
            continue
        if len(curve) != pieces[name].get("measures", len(curve)):
            journal.count("annotations with another number of values than the piece has bars")
        curve = resample.from_bars(curve, duration)
        rated.setdefault(name, []).append(Rating(known[key], curve))
    return rated


def _duration(journal: Journal, where: str, piece: dict[str, Any]) -> float | None:
    duration = piece.get("duration")
    bars = piece.get("measures")
    bars = bars if isinstance(bars, int) and bars > 0 else 1
    longest = min(_LONGEST_S, bars * _LONGEST_BAR_S)
    if isinstance(duration, int | float) and 1 <= duration * RATING_HZ <= longest * RATING_HZ:
        return float(duration)
    what = (
        f"duration is {duration!r}, expected seconds, at most {longest:g} for {bars} bars; its "
        "annotations are left out"
    )
    journal.problem("no duration", where, what)
    return None


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error
    for name in ("pieces", "annotations"):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, dict) or not all(isinstance(v, dict) for v in part.values()):
            raise UserError(
                f"{path} has no object '{name}' of objects, as VGMIDI's files do; restore it from "
                "the download."
            )
    return content["pieces"], content["annotations"]


def _count_pieces_each(journal: Journal, songs: list[Song]) -> None:
    pieces = raters.pieces_each(songs)
    for number in sorted(set(pieces.values())):
        same = sum(count == number for count in pieces.values())
        journal.count(f"raters of {number} piece{'s' if number > 1 else ''}", same)
