"""What is tested: sequences, each one rating of one song or a part of it.

The unit is what a result shall hold for: new annotators, where labels are personal, and new songs,
where they are everyone's mean. Means and intervals are taken over units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.tasks import Episodes


class Sequences(NamedTuple):
    """All tested sequences, flat: M of them, of up to L segments.

    Attributes:
      first: segment of the song with which every sequence begins.
      episode: [M], index into `Episodes`; 0 where there are none.
      rating: [M], index into the corpus.
      song: [M], the song that is rated.
      unit: [M], the annotator, or, of consensus labels, the song.
      curve: [M, L, 2], the rating.
      valid: [M, L].
    """

    first: int
    episode: np.ndarray
    rating: np.ndarray
    song: np.ndarray
    unit: np.ndarray
    curve: np.ndarray
    valid: np.ndarray


def episode_sequences(corpus: Corpus, episodes: Episodes, first: int = 0) -> Sequences:
    """Every (episode, query) that is tested, in the order of the episodes.

    Args:
      corpus: of the episodes.
      episodes: what is tested.
      first: 0, or S where the first clip was adapted on and the rest is tested.
    """
    episode, place = np.nonzero(episodes.tested)
    rating = episodes.query[episode, place]
    return _sequences(corpus, episode, rating, episodes.annotator[episode], first)


def song_sequences(corpus: Corpus) -> Sequences:
    """Every rating once, for what predicts a song the same for everybody."""
    rating = np.arange(len(corpus.curve))
    unit = corpus.tables.song_of if corpus.is_consensus else corpus.tables.annotator_of
    return _sequences(corpus, np.zeros_like(rating), rating, np.asarray(unit), 0)


def _sequences(corpus: Corpus, episode, rating, unit, first: int) -> Sequences:
    return Sequences(
        first=first,
        episode=episode,
        rating=rating,
        song=np.asarray(corpus.tables.song_of)[rating],
        unit=unit,
        curve=corpus.curve[rating, first:],
        valid=corpus.valid[rating, first:],
    )
