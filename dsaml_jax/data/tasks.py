"""Annotator tasks, as indices into a corpus: support clips to adapt on, query clips to test on.

Training tasks are a pure function of a key, so that a run can resume from its step alone.
Validation and test tasks ("episodes") are fixed by a seed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.tables import Tables
from dsaml_jax.errors import UserError


class Draw(NamedTuple):
    """A meta-batch of B tasks.

    Attributes:
      annotator: [B], distinct annotators.
      support: [B, k], the ratings to adapt on.
      query: [B, q], the ratings that give the meta-loss.
    """

    annotator: jax.Array
    support: jax.Array
    query: jax.Array


def draw_tasks(
    key: jax.Array, tables: Tables, *, meta_batch: int, support: int, query: int
) -> Draw:
    """Draws annotators without replacement, and disjoint support and query ratings of each.

    Query ratings are drawn with replacement only for annotators with fewer than
    `support + query` songs. Can be traced by `jit`; `check_tasks` checks the sizes up front.
    """
    annotator_key, *task_keys = jax.random.split(key, 1 + meta_batch)
    annotators = jax.random.permutation(annotator_key, len(tables.counts))[:meta_batch]

    def draw_one(key, annotator):
        order_key, repeat_key = jax.random.split(key)
        count = tables.counts[annotator]
        place = jnp.arange(tables.ratings_of.shape[1])
        noise = jax.random.uniform(order_key, place.shape)
        order = jnp.argsort(jnp.where(place < count, noise, jnp.inf))
        distinct = support + jnp.arange(query)
        repeated = jax.random.randint(repeat_key, (query,), support, count)
        query_place = jnp.where(count - support >= query, distinct, repeated)
        ratings = tables.ratings_of[annotator]
        return ratings[order[:support]], ratings[order[jnp.minimum(query_place, len(place) - 1)]]

    support_ratings, query_ratings = jax.vmap(draw_one)(jnp.stack(task_keys), annotators)
    return Draw(annotators, support_ratings, query_ratings)


def check_tasks(corpus: Corpus, *, meta_batch: int, support: int, source: str) -> None:
    """Raises UserError unless `draw_tasks` can draw tasks of these sizes from the corpus."""
    if len(corpus.annotator_ids) < meta_batch:
        raise UserError(
            f"{source}: tasks.meta_batch is {meta_batch}, but there are only "
            f"{len(corpus.annotator_ids)} annotators; lower it or data.min_songs."
        )
    check_support(corpus, support=support, source=source)


def check_support(corpus: Corpus, *, support: int, source: str) -> None:
    """Raises UserError unless every annotator has a song left to test on."""
    counts = np.asarray(corpus.tables.counts)
    too_few = np.flatnonzero(counts <= support)
    if len(too_few):
        raise UserError(
            f"{source}: tasks.support is {support}, but {len(too_few)} annotators rated no more "
            f"songs than that ({corpus.annotator_ids[too_few[0]]} rated {counts[too_few[0]]}), so "
            f"none is left to test on; lower it or raise data.min_songs to {support + 1}."
        )


class Episodes(NamedTuple):
    """E fixed tasks for validation or test.

    Attributes:
      annotator: [E].
      support: [E, k], the ratings to adapt on.
      query: [E, Q], the ratings to test on, padded with the first one.
      tested: [E, Q] bool, False for padding.
      control: [E, k], the ratings that the control adapts on: another annotator's, of the same
        songs if anyone else rated them all.
      same_songs: [E] bool, whether the control's songs are the same.
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
    """Draws up to `episodes` tasks with disjoint supports for every annotator.

    Annotators without a song left to test on are left out. Each task is tested on up to `query` of
    the annotator's other songs, drawn without replacement.

    Raises:
      UserError: there is only one annotator, so there is no control.
    """
    tables: Tables = jax.device_get(corpus.tables)
    _check_control(tables)
    rating_at = _rating_at(tables)
    rows = []
    for annotator, count in enumerate(tables.counts):
        if count <= support:
            continue
        rng = np.random.default_rng([seed, annotator])
        ratings = rng.permutation(tables.ratings_of[annotator, :count])
        for start in range(0, min(episodes * support, count - support + 1), support):
            chosen = ratings[start : start + support]
            others = rng.permutation(np.setdiff1d(ratings, chosen))[:query]
            control, same = _control(rng, tables, rating_at, annotator, chosen)
            tested = np.arange(query) < len(others)
            others = np.pad(others, (0, query - len(others)), constant_values=others[0])
            rows.append((annotator, chosen, others, tested, control, same))
    return Episodes(*(np.array(column) for column in zip(*rows, strict=True)))


def same_song_episodes(corpus: Corpus, *, seed: int) -> Episodes:
    """Makes a task of every rating of a long song: adapt on its first clip, test on the rest.

    This is how the DSAML release tests on DEAM. A song counts as long if the rating covers two
    clips (2 S segments) or more. Support and query are the same rating here: the part after the
    first S segments is tested (`evaluation.sequences`).

    Raises:
      UserError: no rating is that long, or there is only one annotator.
    """
    tables: Tables = jax.device_get(corpus.tables)
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
            "evaluation.protocols contains 'same_song', but no rating of a test song covers two "
            f"clips ({2 * corpus.segments} segments); remove 'same_song'."
        )
    return Episodes(*(np.array(column) for column in zip(*rows, strict=True)))


def _check_control(tables: Tables) -> None:
    if len(tables.counts) < 2:
        raise UserError(
            "Evaluation needs at least two annotators, one of whom serves as the control; lower "
            "data.min_songs or use more of the data set."
        )


def _rating_at(tables: Tables) -> dict[tuple[int, int], int]:
    """Returns {(song, annotator): rating}."""
    pairs = zip(tables.song_of.tolist(), tables.annotator_of.tolist(), strict=True)
    return {pair: rating for rating, pair in enumerate(pairs)}


def _control(
    rng: np.random.Generator,
    tables: Tables,
    rating_at: dict[tuple[int, int], int],
    annotator: int,
    support: np.ndarray,
) -> tuple[np.ndarray, bool]:
    """Draws another annotator's ratings, of the same songs if anyone else rated them all.

    Returns:
      As many ratings as `support` has, and whether they are of the same songs.
    """
    songs = tables.song_of[support].tolist()
    others = rng.permutation(np.setdiff1d(np.arange(len(tables.counts)), annotator)).tolist()
    for other in others:
        if all((song, other) in rating_at for song in songs):
            return np.array([rating_at[song, other] for song in songs]), True
    other = next((o for o in others if tables.counts[o] >= len(songs)), others[0])
    ratings = np.asarray(tables.ratings_of[other, : tables.counts[other]])
    return rng.choice(ratings, len(songs), replace=len(ratings) < len(songs)), False
