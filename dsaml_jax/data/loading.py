"""The corpora of a run: train, validation, test."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

from dsaml_jax.config.experiment import DataConfig, Experiment
from dsaml_jax.data.corpus import Corpus, build_corpus
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.datasets import filters, ratings
from dsaml_jax.datasets.schema import EVERYONE, Song
from dsaml_jax.datasets.splits import SPLITS, Partition, split_people, split_songs
from dsaml_jax.errors import UserError
from dsaml_jax.preparation import prepared_songs

LOG = logging.getLogger(__name__)

PREDEFINED_SPLITS = ("synthetic", "deam")
"""Data sets that define their own test songs; the songs of the others are split at random."""


def load_corpora(experiment: Experiment) -> dict[str, Corpus]:
    """Prepares the data set if necessary, splits it, and builds a corpus for each split.

    Test songs are kept whole if `evaluation.whole_songs`; all others are cut to their first clip.
    Embeddings are scaled to mean 0 and standard deviation 1 over the training songs.

    Raises:
      UserError: preparation fails, there are too few songs to split, or `build_corpus` refuses a
        split.
    """
    data = experiment.data
    prepared = prepared_songs(data, experiment.audio)
    removed = prepared.filtered.values()
    people = prepared.findings.annotators
    if data.labels == "personal" and not people and any(c.flat or c.rare for c in removed):
        raise filters.nothing_passes(data.filters, removed, prepared.findings.root)
    partition = partition_of(data, prepared.splits)
    LOG.info("%s", partition)
    ratings_by_song = {song.song_id: song.ratings for song in prepared.songs}
    corpora = {}
    for split in SPLITS:
        songs = partition.songs[split]
        corpus = build_corpus(
            songs,
            (prepared.features[song.song_id] for song in songs),
            segments=experiment.audio.segments,
            min_songs=data.validation_min_songs if split == "validation" else data.min_songs,
            source=f"{data.name}, {split}",
            labels=data.labels,
            whole_songs=split == "test" and experiment.evaluation.whole_songs,
            on_device=data.on_device,
            embedding_per_segment=experiment.audio.embedding_per_segment,
            ratings_by_song=ratings_by_song,
        )
        sources = tuple(prepared.features.source(song.song_id) for song in songs)
        corpora[split] = dataclasses.replace(corpus, sources=sources)
        LOG.info("%s: %s", split, corpora[split])
    check_disjoint(corpora)
    scaling = Scaling.of(corpora["train"].tables.embedding)
    return {split: corpus.scaled(scaling) for split, corpus in corpora.items()}


def partition_of(data: DataConfig, splits: Mapping[str, Iterable[Song]]) -> Partition:
    """Assigns songs and ratings to training, validation and test.

    Args:
      data: its labels, data set and split rules apply.
      splits: {split: songs}, the data set's own splits.
    """
    own_split = {song.song_id: split for split, songs in splits.items() for song in songs}
    songs = [song for split_of_songs in splits.values() for song in split_of_songs]
    released = (lambda song: own_split[song.song_id]) if data.name in PREDEFINED_SPLITS else None
    if data.labels == "personal":
        return split_people(songs, data.split, released)
    return split_songs([_with_consensus(song) for song in songs], data.split, released)


def check_disjoint(corpora: Mapping[str, Corpus]) -> None:
    """Raises UserError if splits share a song or, with personal labels, an annotator."""
    split_of: dict[tuple[str, str], str] = {}
    for split, corpus in corpora.items():
        annotators = () if corpus.is_consensus else corpus.annotator_ids
        for kind, names in (("song", corpus.song_ids), ("annotator", annotators)):
            for name in names:
                other = split_of.setdefault((kind, name), split)
                if other != split:
                    raise UserError(
                        f"{kind} {name} is in both {other} and {split}; remove it from one of them."
                    )


def _with_consensus(song: Song) -> Song:
    """Adds a rating by `EVERYONE`, the mean of the annotators, unless the data set has its own.

    The noise-free curve of a simulated song is its population curve, which differs from the mean of
    the annotators by rating noise.
    """
    if not song.ratings or any(rating.annotator_id == EVERYONE for rating in song.ratings):
        return song
    mean = ratings.consensus(song.ratings)
    if song.population is not None:
        mean = dataclasses.replace(mean, noise_free=song.population[: len(mean.curve)])
    return dataclasses.replace(song, ratings=(*song.ratings, mean))
