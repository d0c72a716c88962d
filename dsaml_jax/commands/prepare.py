"""The command `prepare`: prepares a data set and reports what it holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.datasets.report import Findings
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.songs import prepared_songs, read_labels
from dsaml_jax.reports.data_set import (
    data_figure,
    describe_audio,
    describe_splits,
    rating_values,
    ratings_per_song,
    songs_per_annotator,
)
from dsaml_jax.runtime.files import write_text

LOG = logging.getLogger(__name__)

FOLDER = "preparation"
"""Subfolder of the workdir that holds the report."""


def prepare(experiment: Experiment, workdir: Path) -> str:
    """Prepares the experiment's data and writes `report.txt`, `report.png` and `findings.json`.

    They are written twice: first about the labels alone, so that a run that stops during audio
    processing leaves a report, then about everything.

    Returns:
      The report, with long lists shortened.

    Raises:
      UserError: see `prepared_songs`; or the folder cannot be created.
    """
    folder = workdir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be created ({error.strerror}); choose another --workdir."
        ) from error
    labeled, findings = read_labels(experiment.data)
    as_read = ["As read, with or without audio:", *describe_splits(labeled)]
    _write(folder, findings, as_read, labeled)
    LOG.info("%s; see %s", findings.line(), folder / "report.txt")
    prepared = prepared_songs(experiment.data, experiment.audio)
    lines = [*describe_audio(prepared), *describe_splits(prepared.splits)]
    _write(folder, prepared.findings, [*as_read, "", *lines], prepared.splits)
    where = f"\nThe whole report is in {folder}/: report.txt, report.png, findings.json."
    return "\n".join([prepared.findings.text(), "", *lines, where])


def _write(
    folder: Path, findings: Findings, lines: list[str], splits: Mapping[str, Sequence[Song]]
) -> None:
    text = "\n".join([findings.text(shown=None), "", *lines])
    write_text(folder / "report.txt", text + "\n")
    findings.save(folder)
    songs = [song for split in splits.values() for song in split]
    data_figure(
        folder / "report.png",
        {
            "people": rating_values(songs, personal=True),
            "average": rating_values(songs, personal=False),
        },
        list(ratings_per_song(songs).values()),
        list(songs_per_annotator(songs).values()),
    )
