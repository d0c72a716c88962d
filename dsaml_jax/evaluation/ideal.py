"""The ceiling on simulated data: predictions by someone who knows the simulator and the true cues.

They bound what a model of the sound can reach (`dsaml_jax.datasets.synthetic.ideal`). The true cues
are drawn here, from the settings of the data set; no corpus holds them, so training cannot see
them.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from dsaml_jax.config.experiment import DataConfig
from dsaml_jax.datasets.synthetic import builder_config
from dsaml_jax.datasets.synthetic.ideal import IdealCurves, adapted_curves, rating_noise
from dsaml_jax.datasets.synthetic.posterior import Prior, design, prior_of
from dsaml_jax.datasets.synthetic.settings import SyntheticSettings
from dsaml_jax.datasets.synthetic.simulation import cues_of
from dsaml_jax.evaluation.protocols import EvalSet

_CHUNK = 8
"""Episodes computed at once; larger chunks are slower."""

_PRIOR_DRAWS, _POSTERIOR_DRAWS = 2048, 256
"""Listeners drawn from the prior and from each posterior."""


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known of the simulator and of the songs of one split.

    Attributes:
      settings: of the data set.
      prior: of the listeners, for ratings of a first clip.
      designs: [N, H, L, 7], the true cues as listeners integrate them, over the L tested segments.
    """

    settings: SyntheticSettings
    prior: Prior
    designs: np.ndarray


def truth_of(data: DataConfig, eval_set: EvalSet) -> Truth | None:
    """Draws the true cues of an evaluation set's songs, over whole songs or first clips, as tested.

    Returns:
      None for real data, consensus labels, and the same-song protocol, where the support's rating
      noise would tell of the tested segments.
    """
    if data.name != "synthetic" or eval_set.episodes is None or eval_set.sequences.first:
        return None
    settings = builder_config("run", **data.builder).settings
    length = min(eval_set.sequences.curve.shape[1], settings.ratings)
    cues = [cues_of(settings, song_id) for song_id in eval_set.corpus.song_ids]
    designs = design(settings.spread, cues, settings.ratings_start_s, length)
    prior = prior_of(settings.spread, min(eval_set.corpus.segments, length))
    return Truth(settings, jax.tree.map(np.float32, prior), designs.astype(np.float32))


def ideal_population(truth: Truth, eval_set: EvalSet) -> IdealCurves:
    """Predicts every sequence for a listener of whom nothing is known: curves [M, L, 2]."""
    nothing, songs = np.zeros((1, 0), int), np.arange(len(truth.designs))[None]
    curves = _predict(truth, eval_set, _PRIOR_DRAWS, nothing, songs, np.zeros(1, int))
    return jax.tree.map(lambda c: _padded(c[0][eval_set.sequences.song], eval_set), curves)


def ideal_adapted(truth: Truth, eval_set: EvalSet, support: np.ndarray) -> IdealCurves:
    """Predicts every sequence after seeing the ratings `support` [E, k]: curves [M, L, 2]."""
    episodes = eval_set.episodes
    assert episodes is not None, "personal labels have episodes"
    query = np.asarray(eval_set.corpus.tables.song_of)[episodes.query]
    parts: list[IdealCurves] = []
    for first in range(0, len(support), _CHUNK):
        # The last chunk is filled up with the first episodes, so that only one shape is compiled.
        rows = np.arange(first, first + _CHUNK) % len(support)
        parts.append(_predict(truth, eval_set, _POSTERIOR_DRAWS, support[rows], query[rows], rows))
    curves = jax.tree.map(lambda *c: np.concatenate(c)[: len(support)], *parts)
    return jax.tree.map(lambda c: _padded(c[episodes.tested], eval_set), curves)


def _predict(
    truth: Truth,
    eval_set: EvalSet,
    draws: int,
    support: np.ndarray,
    query: np.ndarray,
    seeds: np.ndarray,
) -> IdealCurves:
    """Predicts the songs `query` [E, Q] after the ratings `support` [E, k]: curves [E, Q, L, 2]."""
    tables = eval_set.corpus.tables
    segments = truth.prior.whitener.shape[-1]
    noise = rating_noise(truth.settings.spread, truth.designs.shape[2], draws)
    curves = adapted_curves(
        truth.prior,
        noise,
        truth.designs,
        np.asarray(tables.song_of)[support],
        np.asarray(tables.curve)[support, :segments],
        query,
        jax.vmap(jax.random.key)(seeds),
    )
    return jax.device_get(curves)


def _padded(curves: np.ndarray, eval_set: EvalSet) -> np.ndarray:
    """Fills segments that nobody rates with zeros, up to the length of the sequences."""
    missing = eval_set.sequences.curve.shape[1] - curves.shape[1]
    return np.pad(curves, ((0, 0), (0, missing), (0, 0)))
