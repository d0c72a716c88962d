"""How well the other raters of a song predict one of them.

The mean of many other raters is what they agree on. It has nearly the least squared error that is
possible without knowing the rater, but it is no ceiling of CCC: it moves less than any one rating,
which CCC penalizes, so a curve that is the same for everybody can do better.
"""

from __future__ import annotations

import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.evaluation.sequences import Sequences


def consensus_curves(
    corpus: Corpus, sequences: Sequences, fallback: np.ndarray
) -> tuple[np.ndarray, int]:
    """Averages, for each sequence, the ratings of the same song by all other annotators.

    The other annotators are those of the whole data set, including those that belong to no split.

    Args:
      corpus: the corpus of the sequences, with personal labels.
      sequences: the tested sequences.
      fallback: [2], the value of segments that no other annotator rated.

    Returns:
      The curves [M, L, 2], and the number of valid segments that no other annotator rated.
    """
    length = sequences.curve.shape[1]
    curves = np.empty((len(sequences.rating), length, 2))
    segments_without_other_raters = 0
    annotator_of = np.asarray(corpus.tables.annotator_of)[sequences.rating]
    for song in np.unique(sequences.song):
        ratings = corpus.ratings_by_song[song]
        total, raters = _sum_and_count([r.curve for r in ratings], sequences.first, length)
        curve_by_annotator = {r.annotator_id: r.curve for r in ratings}
        for m in np.flatnonzero(sequences.song == song):
            own = curve_by_annotator[corpus.annotator_ids[annotator_of[m]]]
            own_total, own_count = _sum_and_count([own], sequences.first, length)
            others = raters - own_count
            mean = (total - own_total) / np.maximum(others, 1)[:, None]
            curves[m] = np.where(others[:, None] > 0, mean, fallback)
            segments_without_other_raters += int(((others == 0) & sequences.valid[m]).sum())
    return curves, segments_without_other_raters


def _sum_and_count(
    curves: list[np.ndarray], first: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum [length, 2] and the number [length] of the curves from `first` on."""
    total, count = np.zeros((length, 2)), np.zeros(length, int)
    for curve in curves:
        part = curve[first : first + length]
        total[: len(part)] += part
        count[: len(part)] += 1
    return total, count
