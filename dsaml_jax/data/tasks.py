"""Annotator tasks: who, adapted on which songs, tested on which; integers into a corpus.

Training tasks are a pure function of a key, so that a run is resumed by its step alone; validation
and test tasks ("episodes") are fixed by a seed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.data.corpus import Corpus, Tables
from dsaml_jax.errors import UserError


class Draw(NamedTuple):
    """A meta-batch of B tasks: `annotator` [B], ratings `support` [B, k] and `query` [B, q]."""

    annotator: jax.Array
    support: jax.Array
    query: jax.Array


def draw_tasks(
    key: jax.Array, tables: Tables, *, meta_batch: int, support: int, query: int
) -> Draw:
    """Draws annotators without replacement, and disjoint support and query ratings of each.

    Query ratings are drawn with replacement only where an annotator has too few songs. Jittable;
    `check_tasks` says beforehand whether there are enough annotators and songs.
    """
    annotator_key, *task_keys = jax.random.split(key, 1 + meta_batch)
    annotators = jax.random.permutation(annotator_key, len(tables.counts))[:meta_batch]

    def one(key, annotator):
        order_key, repeat_key = jax.random.split(key)
        count = tables.counts[annotator]
        place = jnp.arange(tables.ratings_of.shape[1])
        noise = jax.random.uniform(order_key, place.shape)
        order = jnp.argsort(jnp.where(place < count, noise, jnp.inf))
        fresh = support + jnp.arange(query)
        repeated = jax.random.randint(repeat_key, (query,), support, count)
        chosen = jnp.where(count - support >= query, fresh, repeated)
        mine = tables.ratings_of[annotator]
        return mine[order[:support]], mine[order[jnp.minimum(chosen, len(place) - 1)]]

    support_ratings, query_ratings = jax.vmap(one)(jnp.stack(task_keys), annotators)
    return Draw(annotators, support_ratings, query_ratings)


def check_tasks(corpus: Corpus, *, meta_batch: int, support: int, source: str) -> None:
    """Raises UserError unless `draw_tasks` can be served from the corpus."""
    if len(corpus.annotator_ids) < meta_batch:
        raise UserError(
            f"{source}: tasks.meta_batch = {meta_batch} annotators a step, but there are only "
            f"{len(corpus.annotator_ids)}; lower it or data.min_songs."
        )
    check_support(corpus, support=support, source=source)


def check_support(corpus: Corpus, *, support: int, source: str) -> None:
    """Raises UserError unless every annotator has a song left to be tested on."""
    counts = np.asarray(corpus.tables.counts)
    few = np.flatnonzero(counts <= support)
    if len(few):
        raise UserError(
            f"{source}: tasks.support = {support} songs to adapt on, but {len(few)} annotators "
            f"have no more than that ({corpus.annotator_ids[few[0]]} has {counts[few[0]]}) and "
            f"nothing to be tested on; lower it or raise data.min_songs to {support + 1}."
        )


class Episodes(NamedTuple):
    """E fixed tasks of validation or test, as NumPy arrays.

    Attributes:
      annotator: [E].
      support: [E, k] ratings adapted on.
      query: [E, Q] ratings tested on, padded with the first of them.
      tested: [E, Q] bool, False for padding.
      control: [E, k] ratings of the control: another annotator's, of the same songs where there is
        one who rated them all.
      same_songs: [E] bool, whether there was.
    """

    annotator: np.ndarray
    support: np.ndarray
    query: np.ndarray
    tested: np.ndarray
    control: np.ndarray
    same_songs: np.ndarray


def fixed_episodes(
    corpus: Corpus, *, support: int, episodes: int, query: int, seed: int
) -> Episodes:
    """For every annotator up to `episodes` tasks with disjoint supports, each tested on up to
    `query` of the annotator's other songs (drawn once, without replacement).

    Raises:
      UserError: there is only one annotator, so that nobody can serve as the control.
    """
    tables = jax.device_get(corpus.tables)
    _check_control(tables)
    rating_at = _rating_at(tables)
    rows = []
    for annotator, count in enumerate(tables.counts):
        rng = np.random.default_rng([seed, annotator])
        mine = rng.permutation(tables.ratings_of[annotator, :count])
        for start in range(0, min(episodes * support, count - support + 1), support):
            chosen = mine[start : start + support]
            others = rng.permutation(np.setdiff1d(mine, chosen))[:query]
            control, same = _control(rng, tables, rating_at, annotator, chosen)
            tested = np.arange(query) < len(others)
            others = np.pad(others, (0, query - len(others)), constant_values=others[0])
            rows.append((annotator, chosen, others, tested, control, same))
    return Episodes(*(np.array(column) for column in zip(*rows, strict=True)))


def same_song_episodes(corpus: Corpus, *, seed: int) -> Episodes:
    """For every rating of a long song a task: its first clip is the support, its rest the query.

    This is the DSAML release's test on DEAM. A song is long where the rating covers two clips (2 S
    segments) or more. Query and support are the same rating here: what is tested is its part after
    the first S segments (`evaluation.sequences`).

    Raises:
      UserError: no rating is that long, or there is only one annotator.
    """
    tables = jax.device_get(corpus.tables)
    _check_control(tables)
    rating_at = _rating_at(tables)
    rows = []
    for rating in np.flatnonzero(corpus.valid.sum(1) >= 2 * corpus.segments):
        annotator = int(tables.annotator_of[rating])
        rng = np.random.default_rng([seed, int(rating)])
        chosen = np.array([rating])
        control, same = _control(rng, tables, rating_at, annotator, chosen)
        rows.append((annotator, chosen, chosen, np.array([True]), control, same))
    if not rows:
        raise UserError(
            f"evaluation.protocols has same_song, but no test song is rated over two clips "
            f"({2 * corpus.segments} segments); leave it out."
        )
    return Episodes(*(np.array(column) for column in zip(*rows, strict=True)))


def _check_control(tables: Tables) -> None:
    if len(tables.counts) < 2:
        raise UserError("Evaluation needs at least two annotators: one serves as control.")


def _rating_at(tables: Tables) -> dict[tuple[int, int], int]:
    pairs = zip(tables.song_of.tolist(), tables.annotator_of.tolist(), strict=True)
    return {pair: rating for rating, pair in enumerate(pairs)}


def _control(rng, tables: Tables, rating_at, annotator: int, support: np.ndarray):
    """Ratings of someone else: of the same songs if anybody rated them all."""
    songs = tables.song_of[support].tolist()
    others = rng.permutation(np.setdiff1d(np.arange(len(tables.counts)), annotator)).tolist()
    for other in others:
        if all((song, other) in rating_at for song in songs):
            return np.array([rating_at[song, other] for song in songs]), True
    other = next((o for o in others if tables.counts[o] >= len(songs)), others[0])
    theirs = tables.ratings_of[other, : tables.counts[other]]
    return rng.choice(theirs, len(songs), replace=len(theirs) < len(songs)), False
