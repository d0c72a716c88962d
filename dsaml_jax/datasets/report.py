"""What a reader found in a data set's folder, and what it left out and why."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from dsaml_jax.datasets import tree
from dsaml_jax.datasets.schema import EVERYONE, Song
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import read_json_object, write_json

FILE_NAME = "findings.json"
"""File name of the saved findings, in the folder of the prepared data."""

_SHOWN = 5  # list entries shown in the text; the rest are only counted
_SHOWN_PER_CLUE = 3

_OTHER_AUDIO = (".m4a", ".aac", ".mp4", ".wma", ".opus", ".aif", ".aiff", ".webm", ".ape", ".mka")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclasses.dataclass(frozen=True)
class DataProblem:
    """A fault in the source; an error if reading is strict.

    Attributes:
      kind: A short name to count by, such as "not a number".
      where: File relative to the root, with row and column if applicable.
      what: What was found, what was expected, and what was done about it.
      rows: Number of rows that are left out for it.
    """

    kind: str
    where: str
    what: str
    rows: int = 0


@dataclasses.dataclass(frozen=True)
class Drop:
    """Ratings left out for a reason that is no fault of the source.

    Attributes:
      reason: Why; drops are counted by reason.
      where: File relative to the root, with row if applicable.
      ratings: Number of ratings dropped; a rating is one annotator's curve of one song.
      rows: Number of rows that they consist of, if they were dropped while tables were read.
    """

    reason: str
    where: str
    ratings: int = 1
    rows: int = 0


@dataclasses.dataclass(frozen=True)
class Findings:
    """The result of reading one data set's folder.

    Attributes:
      data_set: Name of the data set.
      root: The folder that was read.
      songs: Number of songs used; they have audio unless audio was not required.
      labeled_songs: Number of songs with at least one usable rating, with or without audio.
      audio_files: Number of audio files found.
      missing_audio: Ids of labeled songs without an audio file.
      unlabeled_audio: Ids of audio files without a usable rating.
      annotators: Number of people with at least one rating in use, the aggregate excluded.
      ratings: Number of people's curves in use.
      aggregates: Number of curves in use that are averages over people.
      counts: Further numbers, by name.
      drops: Ratings left out.
      problems: Faults in the source.
      expected_audio: Where audio was expected.
      rows_read: Number of rows in the tables of ratings that were read.
      rows_used: Number of rows that are in ratings; the others are in `drops` and `problems`.
    """

    data_set: str
    root: str
    songs: int
    labeled_songs: int
    audio_files: int
    missing_audio: tuple[str, ...]
    unlabeled_audio: tuple[str, ...]
    annotators: int
    ratings: int
    aggregates: int
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    drops: tuple[Drop, ...] = ()
    problems: tuple[DataProblem, ...] = ()
    expected_audio: str = ""
    rows_read: int = 0
    rows_used: int = 0

    @property
    def rows_left_out(self) -> int:
        """Number of rows in drops and problems; `rows_read` is this plus `rows_used`."""
        return sum(record.rows for record in (*self.drops, *self.problems))

    def of(self, songs: Sequence[Song]) -> Findings:
        """Returns the findings with the numbers that describe the songs in use set from `songs`."""
        people = [rating.annotator_id for song in songs for rating in song.ratings]
        aggregates = people.count(EVERYONE)
        return dataclasses.replace(
            self,
            songs=len(songs),
            annotators=len(set(people) - {EVERYONE}),
            ratings=len(people) - aggregates,
            aggregates=aggregates,
        )

    def check_audio(self, strict: bool) -> None:
        """Raises UserError if no song with ratings has audio or, if strict, if any has none."""
        missing = len(self.missing_audio)
        if missing == self.labeled_songs:
            clues = _audio_clues(Path(self.root), self.unlabeled_audio, self.missing_audio)
            raise UserError(
                f"{self.root}: {missing} songs have ratings, {self.audio_files} audio files were "
                f"found, and no song has both; expected audio as {self.expected_audio}"
                + (f", found {clues}." if clues else ".")
            )
        if missing and strict:
            raise UserError(
                f"{self.root}: {missing} of {self.labeled_songs} songs with ratings have no audio "
                f"file, the first being {self.missing_audio[0]}; expected {self.expected_audio} "
                "(strict reading requires audio for every song)."
            )

    def dropped(self) -> dict[str, int]:
        """Returns the number of ratings left out for each reason."""
        totals: dict[str, int] = {}
        for drop in self.drops:
            totals[drop.reason] = totals.get(drop.reason, 0) + drop.ratings
        return totals

    def problem_counts(self) -> dict[str, int]:
        """Returns the number of problems of each kind."""
        totals: dict[str, int] = {}
        for problem in self.problems:
            totals[problem.kind] = totals.get(problem.kind, 0) + 1
        return totals

    def line(self) -> str:
        """Summarizes what was read, in one sentence."""
        missing, labeled = len(self.missing_audio), self.labeled_songs
        read = [f"{number} {name}" for name, number in self.counts.items() if "rows" in name]
        return (
            f"{self.data_set}: {labeled} songs with ratings"
            + (f" ({', '.join(read)})" if read else "")
            + f", {self.audio_files} audio files; "
            + (f"the audio of {missing} songs is missing" if missing else "no audio is missing")
        )

    def text(self, shown: int | None = _SHOWN) -> str:
        """Formats the findings for a reader, with long lists shortened.

        Args:
          shown: Number of problems shown per kind; None for all.
        """
        lines = [
            f"{self.data_set} in {self.root}",
            f"  songs with ratings      {self.labeled_songs}",
            f"  audio files             {self.audio_files}",
            f"  ratings without audio   {_listed(self.missing_audio, 'song')}",
            f"  audio without ratings   {_listed(self.unlabeled_audio, 'file')}",
            f"  songs used              {self.songs}",
            f"  annotators              {self.annotators}",
            f"  ratings of annotators   {self.ratings}",
            f"  averaged ratings        {self.aggregates}",
            f"  rows of ratings         {self.rows_read} read, {self.rows_used} used, "
            f"{self.rows_left_out} left out",
        ]
        lines += [f"  {name}: {number}" for name, number in self.counts.items()]
        for reason, number in self.dropped().items():
            places = [drop.where for drop in self.drops if drop.reason == reason]
            lines.append(f"  left out, {reason}: {number} ratings ({_first(places)})")
        for kind, number in self.problem_counts().items():
            lines.append(f"  problem, {kind}: {number}")
            details = [f"{p.where}: {p.what}" for p in self.problems if p.kind == kind]
            lines += [f"    {line}" for line in details[:shown]]
            if shown is not None and len(details) > shown:
                lines.append(f"    and {len(details) - shown} more, in {FILE_NAME}")
        return "\n".join(lines)

    def save(self, folder: Path) -> Path:
        """Writes the findings as JSON into `folder`; the inverse of `load`."""
        path = Path(folder) / FILE_NAME
        write_json(path, dataclasses.asdict(self))
        return path


def load(folder: Path) -> Findings:
    """Returns the findings saved in `folder`.

    Raises:
      UserError: There are no readable findings.
    """
    path = Path(folder) / FILE_NAME
    try:
        fields = read_json_object(path)
        return Findings(
            **fields
            | {
                "missing_audio": tuple(fields["missing_audio"]),
                "unlabeled_audio": tuple(fields["unlabeled_audio"]),
                "drops": tuple(Drop(**drop) for drop in fields["drops"]),
                "problems": tuple(DataProblem(**problem) for problem in fields["problems"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete its folder and prepare the data set again."
        ) from error


def printable(text: str) -> str:
    """Returns text that can be written as UTF-8: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _audio_clues(root: Path, audio_ids: Collection[str], song_ids: Collection[str]) -> str:
    """Describes files that may be the missing audio of the rated songs; "" if there are none.

    Args:
      root: The data set's folder.
      audio_ids: Ids of the audio files that were found where they were expected.
      song_ids: Ids of the rated songs.
    """
    usable: collections.Counter[str] = collections.Counter()
    convertible: collections.Counter[str] = collections.Counter()
    archives = []
    for entry in tree.walk(root):
        suffix = entry.path.suffix.lower()
        path = entry.path.relative_to(root)
        kind = f"{suffix} files in {printable(path.parent.as_posix())}"
        if suffix in tree.AUDIO_SUFFIXES + tree.MIDI_SUFFIXES:
            usable[kind] += 1
        elif suffix in _OTHER_AUDIO:
            convertible[kind] += 1
        elif suffix in _ARCHIVES:
            archives.append(printable(path.as_posix()))
    clues = []
    if convertible:
        clues.append(f"{_counted(convertible)} (convert them to {', '.join(tree.AUDIO_SUFFIXES)})")
    if archives:
        clues.append(f"{_first(archives, _SHOWN_PER_CLUE)} (unpack it)")
    if audio_ids:
        clues.append(
            f"files named {_first(sorted(audio_ids), _SHOWN_PER_CLUE)}, where the rated songs are "
            f"named {_first(sorted(song_ids), _SHOWN_PER_CLUE)}"
        )
    elif usable:
        clues.append(f"{_counted(usable)} (move them)")
    return "; ".join(clues)


def _counted(files: collections.Counter[str]) -> str:
    return _first([f"{number} {kind}" for kind, number in files.items()], _SHOWN_PER_CLUE)


def _listed(names: tuple[str, ...], noun: str) -> str:
    if not names:
        return "0"
    return f"{len(names)} ({noun}{'s' if len(names) > 1 else ''} {_first(list(names))})"


def _first(names: list[str], shown: int = _SHOWN) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
