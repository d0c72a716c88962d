"""The protocol: adapt to each listener on one song, predict the listener's other songs.

Every way of predicting (a row of the table) sees the same sequences:

    constant        the training ratings' mean, whatever the song
    population      the population model, the same for everybody
    shifted         population, moved by its mean error on the support
    unadapted       the meta-learned weights as they are
    fine_tuned      the population model after the same inner loop on the support
    wrong_listener  the meta-learned weights, adapted to ANOTHER annotator of the support's songs
    adapted         the meta-learned weights, adapted to the support
    oracle          what the listener perceives before rating noise; simulated listeners only
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.corpus import Corpus, Tables
from dsaml_jax.inner import InnerConfig
from dsaml_jax.meta import Learner, adapt
from dsaml_jax.model import DSAML, DSAMLConfig
from dsaml_jax.objective import dsaml_problem
from dsaml_jax.tasks import Episodes

ROW_ORDER = (
    "constant",
    "population",
    "shifted",
    "fine_tuned",
    "unadapted",
    "wrong_listener",
    "adapted",
    "oracle",
)


class Weights(NamedTuple):
    """What a model predicts with.

    Attributes:
      params: its weights.
      statistics: of its normalisation.
      rates: learned rates of the inner loop that adapts it; {} where they are fixed.
    """

    params: Any
    statistics: Any
    rates: Any


class Sequences(NamedTuple):
    """All tested sequences, flat: M of them, of S segments.

    Attributes:
      episode: [M], index into `Episodes`.
      rating: [M], index into the corpus.
      annotator: [M].
      curve: [M, S, 2], the rating.
      valid: [M, S].
    """

    episode: np.ndarray
    rating: np.ndarray
    annotator: np.ndarray
    curve: np.ndarray
    valid: np.ndarray


def tested_sequences(corpus: Corpus, episodes: Episodes) -> Sequences:
    """Every (episode, query) that is tested, in the order of the episodes."""
    episode, place = np.nonzero(episodes.tested)
    rating = episodes.query[episode, place]
    return Sequences(
        episode,
        rating,
        episodes.annotator[episode],
        np.asarray(corpus.tables.curve)[rating],
        np.asarray(corpus.tables.valid)[rating],
    )


Predictor = Callable[[Weights, Corpus, np.ndarray, Episodes], tuple[np.ndarray, np.ndarray]]


def make_predictor(model: DSAMLConfig, inner: InnerConfig, chunk: int) -> Predictor:
    """predict(weights, corpus, support [E, k], episodes) -> (curves [M, S, 2], losses [E, K + 1]).

    Adapts the weights to each episode's `support` ratings with `inner` (K may be 0), at their
    learned rates, if any, and predicts what it tests. Deterministic: dropout is off. `losses` is
    the support loss before each step and after the last. Compiled once for a shape; `chunk`
    episodes are computed at a time.
    """
    problem, loop = dsaml_problem(model, train=False), inner.loop()

    def one(weights: Weights, tables: Tables, support, query):
        key = jax.random.key(0)  # nothing is random here
        batch = tables.batch(support, weights.statistics)
        learner = Learner(weights.params, weights.rates)
        adapted = adapt(
            problem.loss, loop, learner, batch, key, prepare=problem.prepare, exact_steps=0
        )
        last = problem.loss(adapted.params, batch, key)
        clips = tables.batch(query, weights.statistics)
        variables = {"params": adapted.params, "statistics": weights.statistics}
        output = DSAML(model).apply(variables, clips.log_mel, clips.embedding)
        return output.curve, jnp.append(adapted.losses, last)

    many = jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0)))

    def predict(weights, corpus, support, episodes):
        count = len(support)
        # The last chunk is filled up with its first episode, so that one shape is compiled.
        index = np.arange(-(-count // chunk) * chunk) % count
        parts = [
            jax.device_get(many(weights, corpus.tables, support[rows], episodes.query[rows]))
            for rows in index.reshape(-1, chunk)
        ]
        curves, losses = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
        return curves[np.nonzero(episodes.tested)], losses

    return predict


def predict_songs(model: DSAMLConfig, weights: Weights, tables: Tables, chunk: int) -> np.ndarray:
    """[N, S, 2]: what one set of weights predicts of every song of the corpus."""
    count = len(tables.log_mel)
    index = np.arange(-(-count // chunk) * chunk) % count
    parts = [
        jax.device_get(_curves(model, weights, tables.log_mel[rows], tables.embedding[rows]))
        for rows in index.reshape(-1, chunk)
    ]
    return np.concatenate(parts)[:count]


@functools.partial(jax.jit, static_argnums=0)
def _curves(model: DSAMLConfig, weights: Weights, log_mel: jax.Array, embedding: jax.Array):
    variables = {"params": weights.params, "statistics": weights.statistics}
    return DSAML(model).apply(variables, log_mel, embedding).curve


def population_curves(by_song: np.ndarray, corpus: Corpus, sequences: Sequences) -> np.ndarray:
    """[M, S, 2]: each sequence's song as the population model hears it."""
    return by_song[np.asarray(corpus.tables.song_of)[sequences.rating]]


def shifted_curves(
    by_song: np.ndarray, corpus: Corpus, episodes: Episodes, sequences: Sequences
) -> np.ndarray:
    """[M, S, 2]: population, plus its mean error on the episode's support, by dimension."""
    song_of, curve, valid = (
        np.asarray(table)
        for table in (corpus.tables.song_of, corpus.tables.curve, corpus.tables.valid)
    )
    support = episodes.support[sequences.episode]
    error = curve[support] - by_song[song_of[support]]
    weight = valid[support][..., None]
    shift = (weight * error).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)
    return population_curves(by_song, corpus, sequences) + shift[:, None]


def training_mean(corpus: Corpus) -> np.ndarray:
    """[2]: mean of all ratings of the training corpus; the constant baseline."""
    valid = np.asarray(corpus.tables.valid)
    return np.asarray(corpus.tables.curve)[valid].mean(0)
