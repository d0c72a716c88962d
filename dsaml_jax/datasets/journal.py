"""What a reader notes while it goes through a folder, and the findings that come of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from dsaml_jax.datasets import report
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How a data set's folder is read.

    Attributes:
      require_audio: songs without an audio file are left out, and a folder where no song has one
        is an error. Without it their `audio` is empty and their duration ends with the ratings.
      strict: every problem is an error, instead of being noted and passed over.
    """

    require_audio: bool = True
    strict: bool = False


class Journal:
    """Collects problems, drops and counts. One reading, one journal."""

    def __init__(self, data_set: str, root: Path, options: ReadOptions):
        self.data_set = data_set
        self.root = root
        self.options = options
        self.counts: dict[str, int] = {}
        self._drops: list[report.Drop] = []
        self._problems: list[report.Problem] = []

    def name(self, path: Path, row: int | None = None, column: str = "") -> str:
        """How a place is written: the file relative to the root, row and column."""
        try:
            text = path.relative_to(self.root).as_posix()
        except ValueError:
            text = str(path)
        text += f", row {row}" if row is not None else ""
        return text + (f", column {column}" if column else "")

    def problem(self, kind: str, where: str, what: str) -> None:
        """Notes what should not be there.

        Raises:
          UserError: the reading is strict.
        """
        if self.options.strict:
            raise UserError(f"{where}: {what} (strict reading stops here).")
        self._problems.append(report.Problem(kind, where, what))

    def drop(self, reason: str, where: str, ratings: int = 1) -> None:
        """Notes ratings that are left out."""
        if ratings:
            self._drops.append(report.Drop(reason, where, ratings))

    def count(self, name: str, number: int = 1) -> None:
        """Adds to a named number; a zero makes the name appear."""
        self.counts[name] = self.counts.get(name, 0) + number

    def close(
        self, songs: Sequence[Song], audio_ids: Iterable[str], expected_audio: str
    ) -> tuple[list[Song], report.Findings]:
        """The songs to hand on and the findings about them.

        Args:
          songs: all labeled songs; `audio` is empty where no file was found.
          audio_ids: ids of all audio files found.
          expected_audio: where audio was looked for, for the error.

        Raises:
          UserError: no song has a usable rating; or audio is required and no song has any, or, in
            a strict reading, some song has none.
        """
        labeled = [song for song in songs if song.ratings]
        if not labeled:
            raise UserError(self._nothing_left())
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
        )
        if required:
            findings.check_audio(self.options.strict)
        return kept, findings.of(kept)

    def added_to(self, findings: report.Findings, songs: Sequence[Song]) -> report.Findings:
        """The findings with what this journal has noted since, `songs` being handed on."""
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
        told = f" ({'; '.join(reasons)})" if reasons else ""
        return f"{self.root}: no song of {self.data_set} has a usable rating{told}."
