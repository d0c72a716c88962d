"""The tested sequences, each a rating of one song or of a part of it.

The unit is what results should generalize to: new annotators for personal labels, new songs for
consensus labels. Means and confidence intervals are taken over units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.tasks import Episodes


class Sequences(NamedTuple):
    """All M tested sequences, of up to L segments each.

    Attributes:
      first: the segment of the song with which every sequence begins.
      episode: [M], index into `Episodes`; 0 if there are none.
      rating: [M], index into the ratings of the corpus.
      song: [M], the rated song.
      unit: [M], the annotator for personal labels, the song for consensus labels.
      curve: [M, L, 2], the rating.
      valid: [M, L] bool, True where the segment is rated.
    """

    first: int
    episode: np.ndarray
    rating: np.ndarray
    song: np.ndarray
    unit: np.ndarray
    curve: np.ndarray
    valid: np.ndarray


def episode_sequences(corpus: Corpus, episodes: Episodes, first: int = 0) -> Sequences:
    """Lists every tested (episode, query) pair, in the order of the episodes.

    Args:
      corpus: the corpus of the episodes.
      episodes: the fixed tasks.
      first: the first tested segment: 0, or S if the first clip is the support.
    """
    episode, place = np.nonzero(episodes.tested)
    rating = episodes.query[episode, place]
    return _sequences(corpus, episode, rating, episodes.annotator[episode], first)


def song_sequences(corpus: Corpus) -> Sequences:
    """Lists every rating once, for methods that predict the same curve for everyone."""
    rating = np.arange(len(corpus.curve))
    unit = corpus.tables.song_of if corpus.is_consensus else corpus.tables.annotator_of
    return _sequences(corpus, np.zeros_like(rating), rating, np.asarray(unit), 0)


def _sequences(
    corpus: Corpus, episode: np.ndarray, rating: np.ndarray, unit: np.ndarray, first: int
) -> Sequences:
    return Sequences(
        first=first,
        episode=episode,
        rating=rating,
        song=np.asarray(corpus.tables.song_of)[rating],
        unit=unit,
        curve=corpus.curve[rating, first:],
        valid=corpus.valid[rating, first:],
    )
