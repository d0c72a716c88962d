"""The listeners' stage: inference against dense regression, EM, and draws of songs."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.config.listeners import ListenersConfig
from dsaml_jax.data.songs import draw_songs, raters_of
from dsaml_jax.data.tables import Tables
from dsaml_jax.meta import MetaParams
from dsaml_jax.model import initialize
from dsaml_jax.model.likelihood import Noise
from dsaml_jax.model.weights import Weights
from dsaml_jax.training.listeners import (
    Head,
    Listeners,
    Posterior,
    directions,
    expected_squares,
    infer,
    initial_listeners,
    precisions,
    statistics,
    update_listeners,
    whitened,
    with_one,
)
from dsaml_jax.training.listeners_step import (
    infers_after,
    personal_weights,
    start_listeners,
    with_songs_at_most,
)
from tests import device_runs

SONGS, ANNOTATORS, SEGMENTS, HIDDEN = 11, 6, 8, 3
SIZE = HIDDEN + 1


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def example(full_count=False):
    """Returns (listeners, head, tables, raters) with ratings of parts of songs."""
    rng = np.random.default_rng(0)
    pairs = [(s, a) for s in range(SONGS) for a in range(ANNOTATORS) if rng.random() < 0.6]
    song_of, annotator_of = (np.array(each, np.int32) for each in zip(*pairs, strict=True))
    valid = rng.random((len(pairs), SEGMENTS)) < 0.8
    valid[: len(pairs) // 2] = True
    by_annotator = [np.flatnonzero(annotator_of == a) for a in range(ANNOTATORS)]
    counts = np.array([len(own) for own in by_annotator], np.int32)
    ratings_of = np.stack([np.resize(own, counts.max()) for own in by_annotator])
    basis = rng.normal(size=(SONGS, SEGMENTS, HIDDEN)).cumsum(1) / 3
    true = rng.normal(0, [0.3, 0.1, 0.2, 0.1], (ANNOTATORS, 2, SIZE))
    x = np.concatenate([basis, np.ones((SONGS, SEGMENTS, 1))], -1)
    curve = np.einsum("rsq,rdq->rsd", x[song_of], true[annotator_of])
    curve += rng.normal(0, 0.1, curve.shape).cumsum(1) / 2
    tables = Tables(
        jnp.zeros(0),
        jnp.zeros(0),
        *map(jnp.asarray, (curve, valid, song_of, annotator_of, ratings_of, counts)),
    )
    count = np.log(SEGMENTS - 1.0) if full_count else 1.2
    noise = Noise(
        *(jnp.array(pair) for pair in ((2.0, 3.0), (4.0, 3.5), (count, count), (0.3, 1.0)))
    )
    head = Head(jnp.asarray(rng.normal(0, 0.1, (SIZE, 2))), noise)
    listeners = initial_listeners(SONGS, SEGMENTS, HIDDEN, ANNOTATORS, 0.5)
    seen = jnp.arange(SONGS) != 4
    return (
        listeners._replace(basis=jnp.asarray(basis), seen=seen),
        head,
        tables,
        raters_of(tables, SONGS),
    )


def dense(listeners, head, tables, annotator, d):
    """Returns the whitened, scaled design and target of one listener and dimension."""
    noise = Noise(*(field[d] for field in head.noise))
    level, movement = precisions(noise, SEGMENTS)
    rows, targets = [], []
    for rating in np.flatnonzero(np.asarray(tables.annotator_of) == annotator):
        song = int(tables.song_of[rating])
        if not listeners.seen[song]:
            continue
        x = with_one(listeners.basis[song])
        error = tables.curve[rating, :, d] - x @ head.weights[:, d]
        features, target = whitened(x, error, tables.valid[rating], noise)
        rows += [np.sqrt(level) * features.level[None], np.sqrt(movement) * features.innovations]
        targets += [np.sqrt(level) * target.level, np.sqrt(movement) * target.innovations[:, 0]]
    return np.concatenate(rows), np.concatenate(targets)


def test_posteriors_are_those_of_dense_regression_on_the_segments_that_were_rated():
    listeners, head, tables, raters = example()
    found = statistics(listeners, head, tables, raters)
    posterior = infer(found, head.noise, listeners.prior, SEGMENTS)
    for annotator in range(ANNOTATORS):
        for d in range(2):
            x, e = dense(listeners, head, tables, annotator, d)
            covariance = np.linalg.inv(x.T @ x + np.linalg.inv(listeners.prior[d]))
            np.testing.assert_allclose(posterior.covariance[annotator, d], covariance, rtol=1e-8)
            np.testing.assert_allclose(
                posterior.mean[annotator, d], covariance @ x.T @ e, rtol=1e-8
            )


def marginal(listeners, head, tables):
    """Returns the log marginal likelihood of all ratings, up to a constant."""
    total = 0.0
    for d in range(2):
        for annotator in range(ANNOTATORS):
            x, e = dense(listeners, head, tables, annotator, d)
            covariance = np.eye(len(e)) + x @ np.asarray(listeners.prior[d]) @ x.T
            total -= (e @ np.linalg.solve(covariance, e) + np.linalg.slogdet(covariance)[1]) / 2
        seen = np.asarray(listeners.seen)[np.asarray(tables.song_of)]
        valid = np.asarray(tables.valid)[seen]
        total += valid.any(-1).sum() * float(head.noise.log_level[d]) / 2
        total += (valid[:, 1:] & valid[:, :-1]).sum() * float(head.noise.log_movement[d]) / 2
    return total


def test_updates_raise_the_marginal_likelihood():
    """EM never lowers it, where the count is that of the innovations."""
    listeners, head, tables, raters = example(full_count=True)
    update = jax.jit(update_listeners)
    values = [marginal(listeners, head, tables)]
    for _ in range(12):
        listeners, head = update(listeners, head, tables, raters)
        values.append(marginal(listeners, head, tables))
    assert (np.diff(values) > -1e-2).all()  # the prior's smallest variance is not part of EM
    assert values[-1] > values[0] + 5
    np.testing.assert_allclose(listeners.posterior.mean.mean(0), 0, atol=1e-12)


def test_expected_squares_are_those_of_the_posterior():
    """E |e - X d|² over d ~ N(m, V) is |e - X m|² + tr(V XᵀX)."""
    listeners, head, tables, _ = example()
    rng = np.random.default_rng(5)
    mean = rng.normal(size=(2, SIZE))
    root = rng.normal(size=(2, SIZE, SIZE))
    covariance = root @ root.swapaxes(1, 2)
    x = with_one(listeners.basis[0])
    error, valid = tables.curve[-1], tables.valid[-1]
    squares = expected_squares(
        x, error, valid, jnp.asarray(mean), jnp.asarray(covariance), head.noise
    )
    for d in range(2):
        noise = Noise(*(field[d] for field in head.noise))
        features, target = whitened(x, error[:, d], valid, noise)
        for of, design, e in (
            (0, features.level[None], target.level),
            (1, features.innovations, target.innovations[:, 0]),
        ):
            expected = ((e - design @ mean[d]) ** 2).sum()
            expected += np.trace(covariance[d] @ design.T @ design)
            np.testing.assert_allclose(squares[of][d], expected, rtol=1e-10)


def test_all_directions_together_have_the_covariance_of_the_deviations():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(2, SIZE, SIZE))
    prior = root @ root.swapaxes(1, 2) + np.eye(SIZE)
    mean = rng.normal(0, 0.1, (50, 2, SIZE))
    listeners = Listeners(
        jnp.asarray(rng.normal(size=(SONGS, SEGMENTS, HIDDEN)) * [1.0, 2.0, 0.1]),
        jnp.ones(SONGS, bool),
        Posterior(jnp.asarray(mean), jnp.zeros((50, 2, SIZE, SIZE))),
        jnp.asarray(prior),
    )
    found = np.asarray(directions(listeners, 2 * SIZE))
    assert found.shape == (2 * SIZE, SIZE, 2)
    covariance = np.einsum("kpd,kqe->dpeq", found, found)
    for d in range(2):
        np.testing.assert_allclose(covariance[d, :, d], prior[d], rtol=1e-8, atol=1e-10)
    between = np.einsum("ap,aq->pq", mean[:, 0], mean[:, 1]) / 50
    np.testing.assert_allclose(covariance[0, :, 1], between, atol=1e-10)
    moved = np.einsum("kpd,p->k", found[:, :-1] ** 2, np.var(listeners.basis, (0, 1)))
    moved += (found[:, -1] ** 2).sum(-1)
    assert (np.diff(moved) < 1e-9).all()


def test_epochs_are_permutations_and_songs_list_their_raters():
    key = jax.random.key(0)
    draws = np.stack([draw_songs(key, step, SONGS, 3) for step in range(6)])
    for epoch in draws.reshape(2, -1):
        assert len(set(epoch.tolist())) == 9
    assert (draws[:3] != draws[3:]).any()
    _, _, tables, raters = example()
    for song, (ratings, rated) in enumerate(zip(*raters, strict=True)):
        expected = np.flatnonzero(np.asarray(tables.song_of) == song)
        np.testing.assert_array_equal(np.sort(ratings[rated]), expected)


def test_listeners_are_inferred_on_schedule():
    config = dataclasses.replace(ListenersConfig(), infer_from=4, infer_every=3)
    assert [step for step in range(1, 12) if infers_after(config, step)] == [4, 7, 10]


def test_a_step_takes_at_most_all_songs(caplog):
    config = ListenersConfig(songs=4)
    assert with_songs_at_most(config, 4) is config
    with caplog.at_level(logging.INFO):
        assert with_songs_at_most(config, 3) == dataclasses.replace(config, songs=3)
    assert "every step takes all 3 songs" in caplog.text


@pytest.mark.parametrize("support_loss", ["score", "likelihood"])
def test_the_stage_leaves_the_weights_of_the_model_that_it_is_for(support_loss):
    model = dataclasses.replace(
        device_runs.model_of("float64"),
        normalization="clip",
        context_dim=2,
        support_loss="likelihood",
    )

    def fresh(model):
        made = initialize(model, jax.random.key(0), device_runs.IMAGE, device_runs.EMBEDDING)
        return made["params"]

    state = start_listeners(
        model,
        ListenersConfig(),
        Weights(MetaParams(fresh(model), {}), {}),
        optax.sgd(1.0),
        device_runs.random_tables("float64"),
    )
    model = dataclasses.replace(model, support_loss=support_loss)
    found = personal_weights(model, state).params
    assert jax.tree.structure(found) == jax.tree.structure(fresh(model))
