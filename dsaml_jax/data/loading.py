"""From a config to the three corpora of a run: train, validation, test."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

from dsaml_jax.data.corpus import Corpus, Scaling, build_corpus
from dsaml_jax.datasets import ratings
from dsaml_jax.datasets.schema import EVERYONE, Song
from dsaml_jax.datasets.splits import SPLITS, Partition, split_people, split_songs
from dsaml_jax.errors import UserError
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.preparation import prepared_songs

LOG = logging.getLogger(__name__)

SPLIT_BY_MAKERS = ("synthetic", "deam")
"""Data sets that say which songs are for testing; others are split at random."""


def load_corpora(experiment: Experiment) -> dict[str, Corpus]:
    """Prepares the data set if need be, splits it, and indexes songs and ratings by split.

    Test songs are kept whole where `evaluation.whole_songs`, others to their first clip.
    Embeddings are scaled to the training songs' mean 0 and deviation 1.

    Raises:
      UserError: as preparation does; there are too few songs to split; or `build_corpus` refuses
        a split.
    """
    data = experiment.data
    prepared = prepared_songs(data, experiment.audio)
    partition = partition_of(experiment, prepared.splits)
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
            on_device=experiment.data.on_device,
            ratings_by_song=ratings_by_song,
        )
        sources = tuple(prepared.features.source(song.song_id) for song in songs)
        corpora[split] = dataclasses.replace(corpus, sources=sources)
        LOG.info("%s: %s", split, corpora[split])
    check_disjoint(corpora)
    scaling = Scaling.of(corpora["train"])
    return {split: scaling.apply(corpus) for split, corpus in corpora.items()}


def partition_of(experiment: Experiment, splits: Mapping[str, Iterable[Song]]) -> Partition:
    """Which songs and ratings the run trains on, is chosen by, and is tested on.

    Args:
      experiment: whose labels, data set and split rules count.
      splits: songs by the data set's own splits.
    """
    data = experiment.data
    made = {song.song_id: split for split, songs in splits.items() for song in songs}
    songs = [song for each in splits.values() for song in each]
    released = (lambda song: made[song.song_id]) if data.name in SPLIT_BY_MAKERS else None
    if data.labels == "personal":
        return split_people(songs, data.split, released)
    return split_songs([_with_consensus(song) for song in songs], data.split, released)


def check_disjoint(corpora: dict[str, Corpus]) -> None:
    """Raises UserError where splits share a song or, of personal labels, an annotator."""
    seen: dict[str, str] = {}
    for split, corpus in corpora.items():
        people = () if corpus.is_consensus else corpus.annotator_ids
        for kind, names in (("song", corpus.song_ids), ("annotator", people)):
            for name in names:
                other = seen.setdefault(f"{kind} {name}", split)
                if other != split:
                    raise UserError(f"{kind} {name} is in both {other} and {split}; remove one.")


def _with_consensus(song: Song) -> Song:
    """The song with a rating by everyone: the data set's own, else the mean of its raters.

    Simulated songs have a true curve too, from which the raters' mean differs by noise.
    """
    if not song.ratings or any(rating.annotator_id == EVERYONE for rating in song.ratings):
        return song
    mean = ratings.consensus(song.ratings)
    if song.population is not None:
        mean = dataclasses.replace(mean, noise_free=song.population[: len(mean.curve)])
    return dataclasses.replace(song, ratings=(*song.ratings, mean))
