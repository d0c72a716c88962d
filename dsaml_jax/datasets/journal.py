"""The problems, drops and counts that a reader records, and the findings made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dsaml_jax.constraints import check_fields
from dsaml_jax.datasets import report
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Options of reading a data set's folder.

    Attributes:
      require_audio: Whether to leave out songs without an audio file and to reject a folder in
        which no song has one. If False, such songs have an empty `audio`, and their duration ends
        with their ratings.
      strict: Whether any problem raises an error instead of being recorded and skipped.
    """

    require_audio: bool = True
    strict: bool = False

    def __post_init__(self):
        check_fields(self, "data.builder")


def _same_dimensions(songs: Sequence[Song]) -> bool:
    """Returns whether arousal equals valence in all ratings of several songs, and moves."""
    curves = [rating.curve for song in songs for rating in song.ratings]
    return (
        len(songs) > 1
        and all(np.array_equal(curve[:, 0], curve[:, 1], equal_nan=True) for curve in curves)
        and any(np.ptp(curve[:, 0]) > 0 for curve in curves)
    )


class Journal:
    """A collector of problems, drops and counts; one per reading of a folder."""

    def __init__(self, data_set: str, root: Path, options: ReadOptions):
        self.data_set = data_set
        self.root = root
        self.options = options
        self.counts: dict[str, int] = {}
        self.rows_read = 0
        self.rows_used = 0
        self._drops: list[report.Drop] = []
        self._problems: list[report.DataProblem] = []

    def name(self, path: Path, row: int | None = None, column: str = "") -> str:
        """Returns the name of a location: the file relative to the root, with row and column."""
        try:
            text = path.relative_to(self.root).as_posix()
        except ValueError:
            text = str(path)
        text = report.printable(text)
        text += f", row {row}" if row is not None else ""
        return text + (f", column {column}" if column else "")

    def problem(self, kind: str, where: str, what: str, rows: int = 0) -> None:
        """Records a problem in the source and the number of rows that are left out for it.

        Raises:
          UserError: Reading is strict.
        """
        where, what = report.printable(where), report.printable(what)
        if self.options.strict:
            raise UserError(f"{where}: {what} (strict reading stops at the first problem).")
        self._problems.append(report.DataProblem(kind, where, what, rows))

    def drop(self, reason: str, where: str, ratings: int = 1, rows: int = 0) -> None:
        """Records ratings that are left out, and the rows that they consist of."""
        if ratings or rows:
            self._drops.append(report.Drop(reason, report.printable(where), ratings, rows))

    def count(self, name: str, number: int = 1) -> None:
        """Adds to a named count; adding 0 makes the name appear."""
        self.counts[name] = self.counts.get(name, 0) + number

    def close(
        self, songs: Sequence[Song], audio_ids: Iterable[str], expected_audio: str
    ) -> tuple[list[Song], report.Findings]:
        """Returns the songs to use and the findings about them.

        Args:
          songs: All labeled songs; `audio` is empty if no file was found.
          audio_ids: Ids of all audio files found.
          expected_audio: Where audio was expected, for the error message.

        Raises:
          UserError: No song has a usable rating; or audio is required and no song has any; or, if
            strict, a song has none.
        """
        labeled = [song for song in songs if song.ratings]
        if not labeled:
            raise UserError(self._nothing_left())
        if _same_dimensions(labeled):
            raise UserError(
                f"{self.root}: arousal and valence are the same in every rating, so that one must "
                "be a copy of the other; restore both from the download."
            )
        audio_ids = set(audio_ids)
        missing = tuple(song.song_id for song in labeled if not song.audio)
        required = self.options.require_audio
        kept = [song for song in labeled if song.audio or not required]
        labeled_ids = {song.song_id for song in labeled}
        findings = report.Findings(
            data_set=self.data_set,
            root=str(self.root),
            songs=0,
            labeled_songs=len(labeled),
            audio_files=len(audio_ids),
            missing_audio=missing,
            unlabeled_audio=tuple(sorted(audio_ids - labeled_ids)),
            annotators=0,
            ratings=0,
            aggregates=0,
            counts=dict(self.counts),
            drops=tuple(self._drops),
            problems=tuple(self._problems),
            expected_audio=expected_audio,
            rows_read=self.rows_read,
            rows_used=self.rows_used,
        )
        if required:
            findings.check_audio(self.options.strict)
        return kept, findings.of(kept)

    def added_to(self, findings: report.Findings, songs: Sequence[Song]) -> report.Findings:
        """Returns the findings extended by this journal's records, for the songs that are used."""
        counts = dict(findings.counts)
        for name, number in self.counts.items():
            counts[name] = counts.get(name, 0) + number
        return dataclasses.replace(
            findings.of(songs),
            counts=counts,
            drops=findings.drops + tuple(self._drops),
            problems=findings.problems + tuple(self._problems),
        )

    def _nothing_left(self) -> str:
        reasons = [f"{drop.where}: {drop.reason}" for drop in self._drops[:1]]
        reasons += [f"{problem.where}: {problem.what}" for problem in self._problems[:1]]
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return f"{self.root}: no song of {self.data_set} has a usable rating{why}."
