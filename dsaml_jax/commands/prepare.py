"""What a data set holds, told to the user: as text, as a figure, as JSON."""

from __future__ import annotations

import collections
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.datasets.report import Findings
from dsaml_jax.datasets.schema import DIMENSIONS, EVERYONE, Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.songs import Prepared, prepared_songs, read_labels
from dsaml_jax.reports import figures
from dsaml_jax.runtime.files import write_text

LOG = logging.getLogger(__name__)

FOLDER = "preparation"
"""Where in a workdir the report goes."""

_BINS = np.linspace(-1.0, 1.0, 11)


def prepare(experiment: Experiment, workdir: Path) -> str:
    """Prepares the experiment's data and writes `report.txt`, `report.png` and `findings.json`.

    Until the audio is done they tell of the labels alone: a run that stops has told of those.

    Returns:
      The report, with long lists cut short.

    Raises:
      UserError: as `prepared_songs`.
    """
    folder = workdir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another.") from error
    labeled, findings = read_labels(experiment.data)
    read = ["As read, with or without audio:", *_described(labeled)]
    _write(folder, findings, read, labeled)
    LOG.info("%s; see %s", findings.line(), folder / "report.txt")
    prepared = prepared_songs(experiment.data, experiment.audio)
    lines = [*_outcome(prepared), *_described(prepared.splits)]
    _write(folder, prepared.findings, [*read, "", *lines], prepared.splits)
    where = f"\nThe whole report is in {folder}/: report.txt, report.png, findings.json."
    return "\n".join([prepared.findings.text(), "", *lines, where])


def _write(
    folder: Path, findings: Findings, lines: list[str], splits: Mapping[str, Sequence[Song]]
) -> None:
    whole = "\n".join([findings.text(shown=None), "", *lines])
    write_text(folder / "report.txt", whole + "\n")
    findings.save(folder)
    songs = [song for split in splits.values() for song in split]
    figures.data_figure(
        folder / "report.png",
        {name: _values(songs, people) for name, people in (("people", True), ("average", False))},
        list(_ratings_each(songs).values()),
        list(_songs_each(songs).values()),
    )


def _outcome(prepared: Prepared) -> list[str]:
    """What became of the audio."""
    count = len(prepared.songs)
    lines = [
        f"Prepared: {count} songs with features and ratings; the features of "
        f"{prepared.already_there} were there before, {len(prepared.set_aside)} songs set aside"
    ]
    silence = list(prepared.silence_s.values())
    if silence:
        lines.append(
            f"  {len(silence)} songs are followed by silence to the end of their span, "
            f"{np.mean(silence):.1f} s on average and {max(silence):.1f} s at most"
        )
    return lines


def _described(splits: Mapping[str, Sequence[Song]]) -> list[str]:
    """A paragraph a split, and the distribution of values."""
    lines = []
    for name, songs in splits.items():
        ratings, each = _ratings_each(songs), _songs_each(songs)
        averaged = sum(rating.annotator_id == EVERYONE for s in songs for rating in s.ratings)
        lines.append(
            f"  {name}: {len(songs)} songs, {len(ratings)} of them rated by people; {len(each)} "
            f"annotators, {sum(each.values())} ratings; {averaged} averaged ratings"
        )
        if each:
            lines.append(
                f"    ratings a song: {_spread(ratings.values())}; "
                f"songs an annotator: {_spread(each.values())}"
            )
    songs = [song for split in splits.values() for song in split]
    people = bool(_songs_each(songs))
    values = _values(songs, people)
    lines.append(f"  values of {'people' if people else 'the averages'} in percent")
    lines.append("    from    to" + "".join(f"{name:>10}" for name in DIMENSIONS))
    shares = np.stack([np.histogram(column, _BINS)[0] for column in values.T], axis=1)
    percent = 100 * shares / max(len(values), 1)
    for low, high, row in zip(_BINS[:-1], _BINS[1:], percent, strict=True):
        lines.append(f"    {low:4.1f}  {high:4.1f}" + "".join(f"{share:10.1f}" for share in row))
    return lines


def _ratings_each(songs: Sequence[Song]) -> dict[str, int]:
    """Ratings by people of each song that has any."""
    counts = {
        song.song_id: sum(rating.annotator_id != EVERYONE for rating in song.ratings)
        for song in songs
    }
    return {name: count for name, count in counts.items() if count}


def _songs_each(songs: Sequence[Song]) -> dict[str, int]:
    """Songs that each annotator rated."""
    names = (rating.annotator_id for song in songs for rating in song.ratings)
    return dict(collections.Counter(name for name in names if name != EVERYONE))


def _values(songs: Sequence[Song], people: bool) -> np.ndarray:
    """[N, 2] all values rated by people, or all averaged ones."""
    curves = [
        rating.curve
        for song in songs
        for rating in song.ratings
        if (rating.annotator_id != EVERYONE) == people
    ]
    return np.concatenate([np.zeros((0, 2), np.float32), *curves])


def _spread(counts) -> str:
    values = list(counts)
    return f"{min(values)} to {max(values)}, median {np.median(values):g}"
