"""A data set's folder -> its songs with their features: what training starts from."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from dsaml_jax.audio.features import SongFeatures
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.datasets import catalog, filters, folder_builder, ratings, schema, synthetic
from dsaml_jax.datasets.filters import FilterCounts
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.report import Findings
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.extract import Job, load, sound_seconds
from dsaml_jax.preparation.fill import fill_store
from dsaml_jax.runtime.files import PREPARED_REMEDY, cannot_write, storage_reason

Splits = Mapping[str, tuple[Song, ...]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set, ready to train on.

    Attributes:
      splits: songs by the data set's own splits, in a fixed order, without waveforms. Every song
        has features and at least one rating that passed the filters; ratings end where the sound
        does.
      features: by song id; read from the store on each access.
      findings: what was found in the folder, and what was left out of it and why.
      filtered: what the filters left out of each split.
      set_aside: songs whose audio cannot be used, by id, with the reason.
      labeled: songs by split as they were read, with or without audio, before any filter.
      silence_s: by song id, seconds of silence at the end of the span, where the sound has ended.
      already_there: songs whose features were in the store before.
    """

    splits: Splits
    features: StoredFeatures
    findings: Findings
    filtered: Mapping[str, FilterCounts]
    set_aside: Mapping[str, str]
    labeled: Splits
    silence_s: Mapping[str, float]
    already_there: int

    @property
    def songs(self) -> tuple[Song, ...]:
        """All songs, split after split."""
        return tuple(song for songs in self.splits.values() for song in songs)


class StoredFeatures(Mapping[str, SongFeatures]):
    """Features by song id, read from the store on each access."""

    def __init__(self, jobs: Mapping[str, Job]):
        self._jobs = jobs

    def __getitem__(self, song_id: str) -> SongFeatures:
        return load(self._jobs[song_id])

    def source(self, song_id: str) -> str:
        """The keys under which a song's features are stored: hashes of all they depend on."""
        job = self._jobs[song_id]
        return f"{job.log_mel} {job.embedding}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)


def prepared_songs(experiment: Experiment) -> Prepared:
    """Reads the data set that the experiment names, and computes what features are not stored yet.

    A song whose audio cannot be used is set aside, and preparation goes on. Stopped at any point
    and started again, it computes what is missing.

    Raises:
      UserError: the folder cannot be read as that data set; nothing in it has both ratings and
        usable audio; weights are needed and not given; or, if strict, any fault.
    """
    data = experiment.data
    labeled, findings = read_labels(experiment)
    findings.check_audio(data.strict)
    root = findings.root
    journal = Journal(findings.data_set, Path(root), ReadOptions(strict=data.strict))
    songs = [song for split in labeled.values() for song in split if _has_sound(song)]
    jobs, set_aside, there = fill_store(experiment, songs, root)
    for song in songs:
        if song.song_id in set_aside:
            where = song.audio or song.song_id
            journal.problem("audio set aside", where, set_aside[song.song_id])
    if len(set_aside) == len(songs):
        first = next(iter(set_aside.values()))
        raise UserError(
            f"{root}: the audio of none of {len(songs)} songs can be used; the first: {first}"
        )
    splits, filtered = {}, {}
    seconds = {name: sound_seconds(job) for name, job in jobs.items()}
    for name, split in labeled.items():
        heard = [_heard(journal, song, seconds) for song in split if song.song_id in jobs]
        rated = [song for song in heard if song.ratings]
        if data.name != "synthetic":
            rated, filtered[name] = filters.apply(rated, data.filters)
            journal.drop("it hardly moves", f"split {name}", filtered[name].flat)
            journal.drop("its annotator rated too few songs", f"split {name}", filtered[name].rare)
        splits[name] = tuple(rated)
    kept = {song.song_id for split in splits.values() for song in split}
    if not kept:
        raise UserError(
            f"{root}: no rating of a song with usable audio passes data.filters; loosen them."
        )
    return Prepared(
        splits=splits,
        features=StoredFeatures({name: job for name, job in jobs.items() if name in kept}),
        findings=journal.added_to(findings, [s for split in splits.values() for s in split]),
        filtered=filtered,
        set_aside=set_aside,
        labeled=labeled,
        silence_s={
            name: jobs[name].end_s - seconds[name]
            for name in sorted(kept)
            if jobs[name].end_s > seconds[name]
        },
        already_there=there,
    )


def read_labels(experiment: Experiment) -> tuple[dict[str, tuple[Song, ...]], Findings]:
    """All songs with ratings by the data set's own splits, with or without audio.

    Returns:
      The songs, and what was found in the folder.

    Raises:
      UserError: the folder cannot be read as that data set; or, if strict, any fault of its labels.
    """
    data = experiment.data
    if data.name == "synthetic":
        config = synthetic.builder_config("run", **data.builder)
        with _written(data.prepared):
            builder = synthetic.prepare(data.prepared, config)
        splits = {
            split: tuple(schema.decode(each) for each in builder.as_data_source(split=split))
            for split in builder.info.splits
        }
        return splits, _simulated(splits, str(builder.data_path))
    options = {"require_audio": False, "strict": data.strict} | dict(data.builder)
    reader = catalog.options_of(data.name, **options)
    with _written(data.prepared):
        builder = catalog.prepare(data.name, data.root, data.prepared, reader)
    splits = {
        split: tuple(folder_builder.songs_of(builder, split)) for split in builder.info.splits
    }
    return splits, folder_builder.findings_of(builder)


@contextlib.contextmanager
def _written(folder: str) -> Iterator[None]:
    """Without what TFDS prints, which speaks of downloads, and a full disk told in a sentence.

    TFDS writes into a folder of another name and renames it: what was cut off is no data set.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:
        if storage_reason(error) is None:
            raise
        raise cannot_write(folder, error, PREPARED_REMEDY) from error


def _simulated(splits: Splits, root: str) -> Findings:
    songs = [song for split in splits.values() for song in split]
    empty = Findings(
        data_set="synthetic",
        root=root,
        labeled_songs=len(songs),
        audio_files=len(songs),
        missing_audio=(),
        unlabeled_audio=(),
        songs=0,
        annotators=0,
        ratings=0,
        aggregates=0,
    )
    return empty.of(songs)


def _has_sound(song: Song) -> bool:
    return bool(song.audio) or song.waveform is not None


def _heard(journal: Journal, song: Song, seconds: Mapping[str, float]) -> Song:
    """The song without its waveform, its ratings cut where the decoded sound ends."""
    if song.waveform is not None:
        return dataclasses.replace(song, waveform=None)
    length = seconds[song.song_id]
    curves = ratings.cut_to_audio(journal, song.audio, song.ratings, song.ratings_start_s, length)
    return dataclasses.replace(song, duration_s=length, ratings=tuple(curves))
