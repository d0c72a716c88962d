"""The ceiling that disagreement allows: how well the other raters of a song predict one of them.

No model that hears the song alone, and knows nothing of the rater, can be expected to beat the mean
of many other raters by much: what is left is the rater's own, and noise.
"""

from __future__ import annotations

import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.evaluation.sequences import Sequences


def consensus_curves(
    corpus: Corpus, sequences: Sequences, fallback: np.ndarray
) -> tuple[np.ndarray, int]:
    """For each sequence the mean of all OTHER people's ratings of the song, segment by segment.

    The others are of the whole data set, also such as no split kept.

    Args:
      corpus: of the sequences, with personal labels.
      sequences: what is tested.
      fallback: [2], given where nobody else rated a segment.

    Returns:
      [M, L, 2], and the number of valid segments of the sequences that nobody else rated.
    """
    length = sequences.curve.shape[1]
    curves = np.empty((len(sequences.rating), length, 2))
    alone = 0
    annotator_of = np.asarray(corpus.tables.annotator_of)[sequences.rating]
    for song in np.unique(sequences.song):
        ratings_by_song = corpus.ratings_by_song[song]
        total, raters = _sums([r.curve for r in ratings_by_song], sequences.first, length)
        own = {r.annotator_id: r.curve for r in ratings_by_song}
        for m in np.flatnonzero(sequences.song == song):
            mine = own[corpus.annotator_ids[annotator_of[m]]]
            my_total, me = _sums([mine], sequences.first, length)
            others = raters - me
            mean = (total - my_total) / np.maximum(others, 1)[:, None]
            curves[m] = np.where(others[:, None] > 0, mean, fallback)
            alone += int(((others == 0) & sequences.valid[m]).sum())
    return curves, alone


def _sums(curves: list[np.ndarray], first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum [length, 2] and number [length] of the curves from segment `first` on."""
    total, raters = np.zeros((length, 2)), np.zeros(length, int)
    for curve in curves:
        part = curve[first : first + length]
        total[: len(part)] += part
        raters[: len(part)] += 1
    return total, raters
