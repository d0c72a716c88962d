"""Preparation of a data set: its songs with their features, ready for training."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.config.experiment import DataConfig
from dsaml_jax.datasets import catalog, filters, folder_builder, prepared_folder, ratings, synthetic
from dsaml_jax.datasets.filters import FilterCounts
from dsaml_jax.datasets.journal import Journal, ReadOptions
from dsaml_jax.datasets.report import Findings
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation.copies import report_copies, without_repeats
from dsaml_jax.preparation.fill import fill_store
from dsaml_jax.preparation.stored import SoundFacts, StoredFeatures, sound_facts
from dsaml_jax.runtime.files import PREPARED_REMEDY, cannot_write, locked, storage_reason

Splits = Mapping[str, tuple[Song, ...]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set that is ready for training.

    Attributes:
      splits: Songs by the data set's own splits, in a fixed order, without waveforms. Each song has
        features and at least one rating that passed the filters; ratings end where the sound does.
      features: By song id; read from the store on each access.
      findings: What was found in the folder, and what was left out and why.
      filtered: What the filters removed from each split.
      set_aside: Ids of songs whose audio cannot be used, with the reason.
      labeled: Songs by split as read, with or without audio, before filtering.
      silence_s: By song id, the length of the silence between the end of the sound and the end of
        the span, in seconds.
      silent: By song id, the number of rated half seconds in which the sound is silent; songs
        without any are omitted.
      already_there: Number of songs whose features were in the store before.
    """

    splits: Splits
    features: StoredFeatures
    findings: Findings
    filtered: Mapping[str, FilterCounts]
    set_aside: Mapping[str, str]
    labeled: Splits
    silence_s: Mapping[str, float]
    silent: Mapping[str, int]
    already_there: int

    @property
    def songs(self) -> tuple[Song, ...]:
        """All songs, one split after the other."""
        return tuple(song for songs in self.splits.values() for song in songs)


def prepared_songs(data: DataConfig, audio: AudioConfig) -> Prepared:
    """Reads the data set named by `data`, and computes the features that are not yet in the store.

    A song whose audio cannot be used is set aside, and preparation continues. If it is interrupted,
    the next call computes what is missing.

    Raises:
      UserError: The folder cannot be read as that data set; no song has both ratings and usable
        audio; weights are needed and not given; or, if strict, any fault.
    """
    ratings.check_rating_period(audio)
    labeled, findings = read_labels(data)
    findings.check_audio(data.strict)
    root = findings.root
    journal = Journal(findings.data_set, Path(root), ReadOptions(strict=data.strict))
    songs = [song for split in labeled.values() for song in split if _has_sound(song)]
    jobs, set_aside, already_there = fill_store(data, audio, songs, root)
    for song in songs:
        if song.song_id in set_aside:
            where = song.audio or song.song_id
            journal.problem("audio set aside", where, set_aside[song.song_id])
    if len(set_aside) == len(songs):
        first = next(iter(set_aside.values()))
        raise UserError(
            f"{root}: none of the {len(songs)} songs has usable audio; the first: {first}"
        )
    splits, filtered = {}, {}
    sounds = {name: sound_facts(job) for name, job in jobs.items()}
    cut = {
        name: [_cut_to_sound(journal, song, sounds) for song in split if song.song_id in jobs]
        for name, split in labeled.items()
    }
    report_copies(journal, (song for split in cut.values() for song in split))
    for name, split in without_repeats(journal, cut).items():
        rated = [song for song in split if song.ratings]
        if data.name != "synthetic":
            rated, filtered[name] = filters.apply(rated, data.filters)
            journal.drop("it hardly changes", f"split {name}", filtered[name].flat)
            journal.drop("its annotator rated too few songs", f"split {name}", filtered[name].rare)
        splits[name] = tuple(rated)
    used = [song for split in splits.values() for song in split]
    kept = {song.song_id for song in used}
    if not kept:
        raise filters.nothing_passes(data.filters, list(filtered.values()), root)
    silent = _silent_where_rated(journal, used, sounds)
    return Prepared(
        splits=splits,
        features=StoredFeatures({name: job for name, job in jobs.items() if name in kept}),
        findings=journal.added_to(findings, used),
        filtered=filtered,
        set_aside=set_aside,
        labeled=labeled,
        silence_s={
            name: jobs[name].end_s - sounds[name].seconds
            for name in sorted(kept)
            if jobs[name].end_s > sounds[name].seconds
        },
        silent=silent,
        already_there=already_there,
    )


def read_labels(data: DataConfig) -> tuple[dict[str, tuple[Song, ...]], Findings]:
    """Reads all songs with ratings by the data set's own splits, with or without audio.

    Returns:
      The songs by split, and what was found in the folder.

    Raises:
      UserError: The folder cannot be read as that data set; data prepared before are damaged; or,
        if strict, any fault in its labels.
    """
    if data.name == "synthetic":
        config = synthetic.builder_config("run", **data.builder)
        with _exclusive_build(data.prepared):
            builder = synthetic.build(data.prepared, config, data.processes)
        splits = {
            split: tuple(prepared_folder.read_songs(builder, split))
            for split in builder.info.splits
        }
        return splits, _simulated(splits, str(builder.data_path))
    options = {"require_audio": False, "strict": data.strict} | dict(data.builder)
    reader = catalog.options_of(data.name, **options)
    with _exclusive_build(data.prepared):
        builder = catalog.build(data.name, data.root, data.prepared, reader)
    splits = {
        split: tuple(folder_builder.songs_of(builder, split)) for split in builder.info.splits
    }
    return splits, folder_builder.findings_of(builder)


@contextlib.contextmanager
def _exclusive_build(folder: str) -> Iterator[None]:
    """Holds the lock under which TFDS builds a data set; others wait, then find it built.

    The output of TFDS, which mentions downloads, is hidden. TFDS writes into a temporary folder and
    renames it, so an interruption leaves no partial data set.

    Raises:
      UserError: The folder cannot be written, or a file of the source cannot be read.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()), locked(Path(folder) / ".labels.lock"):
            yield
    except UserError:  # about the input, even if its text is that of a storage error
        raise
    except Exception as error:
        path = getattr(error, "filename", None)
        if isinstance(error, OSError) and path and not Path(path).is_relative_to(folder):
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        if storage_reason(error) is None and not isinstance(error, OSError):
            raise
        raise cannot_write(path or folder, error, PREPARED_REMEDY) from error


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


def _silent_where_rated(
    journal: Journal, songs: Sequence[Song], sounds: Mapping[str, SoundFacts]
) -> dict[str, int]:
    """Returns the number of silent half seconds in the rated spans, of songs that have any.

    A song with more than half of its rated span silent is recorded as a problem.
    """
    counts = {}
    for song in songs:
        rated = max(len(rating.curve) for rating in song.ratings)
        count = int(sounds[song.song_id].silent[:rated].sum())
        if count:
            counts[song.song_id] = count
        if 2 * count > rated:
            journal.problem(
                "audio mostly silent where it is rated",
                song.audio or song.song_id,
                f"{count} of the {rated} rated half seconds are silent; it is used: check the file",
            )
    return counts


def _has_sound(song: Song) -> bool:
    return bool(song.audio) or song.waveform is not None


def _cut_to_sound(journal: Journal, song: Song, sounds: Mapping[str, SoundFacts]) -> Song:
    """Returns the song without its waveform, its ratings cut at the end of the decoded sound."""
    length, _, recording = sounds[song.song_id]
    if song.waveform is not None:
        return dataclasses.replace(song, waveform=None, recording=recording)
    curves = ratings.cut_to_audio(journal, song.audio, song.ratings, song.ratings_start_s, length)
    return dataclasses.replace(song, duration_s=length, ratings=tuple(curves), recording=recording)
