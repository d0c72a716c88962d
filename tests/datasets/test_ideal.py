"""The posterior of a simulated listener, and the best curves that follow from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.datasets.synthetic import SyntheticSettings, ideal, listeners, posterior, simulation
from dsaml_jax.datasets.synthetic.listeners import Listener, ListenerSpread
from dsaml_jax.evaluation.metrics import sequence_metrics

SPREAD = ListenerSpread()
START_S, SEGMENTS = 2.0, 20
SETTINGS = SyntheticSettings(
    test_songs=6, test_annotators=48, duration_s=START_S + SEGMENTS / 2, ratings_start_s=START_S
)


def cues(count=6):
    return [simulation.draw_cues(SETTINGS, "test", i) for i in range(count)]


def designs(spread=SPREAD):
    return posterior.design(spread, cues(), START_S, SEGMENTS)


def in_float32(tree):
    return jax.tree.map(np.float32, tree)


@pytest.fixture(scope="module")
def prior():
    return in_float32(posterior.prior_of(SPREAD, SEGMENTS))


# ---- the posterior ---------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [0, 1])
def test_the_design_gives_what_a_listener_perceives(dimension):
    rng = np.random.default_rng(0)
    for reaction, (lag_s, inertia_s) in enumerate(posterior.reactions(SPREAD)):
        drawn = listeners.draw_listener(rng, SPREAD)
        listener = dataclasses.replace(drawn, lag_s=lag_s, inertia_s=inertia_s)
        expected = listeners.perceive(listener, cues()[0], START_S, SEGMENTS)[:, dimension]
        theta = np.concatenate([listener.offset[None], listener.weights])
        known = posterior.Listeners(
            gain=jnp.asarray(listener.gain[:, None]),
            reaction=jnp.full((2, 1), reaction),
            theta=jnp.asarray(theta.T[:, None]),
        )
        perceived = ideal.perceived_curves(known, jnp.asarray(designs()[0]))
        np.testing.assert_allclose(perceived[dimension, 0], expected, atol=1e-5)


def test_where_tanh_is_linear_the_posterior_is_the_exact_gaussian():
    """Everything is scaled down by 1e-4, where tanh x differs from x by 3e-9 of its value."""
    small = 1e-4
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        prior = posterior.prior_of(SPREAD, SEGMENTS)
        prior = prior._replace(
            mean=small * prior.mean, sd=small * prior.sd, whitener=prior.whitener / small
        )
        songs = designs()[:2]
        ratings = small * rng.normal(0, 0.3, (2, SEGMENTS, 2))
        found = jax.device_get(posterior.posterior(prior, jnp.array(songs), jnp.array(ratings)))
    for d in range(2):
        log_evidence = np.empty(found.log_weight.shape[1:])
        for g, h in np.ndindex(log_evidence.shape):
            scale = np.array([1.0] + [prior.gain[d, g]] * 6)
            x = np.concatenate(songs[:, h]) * scale
            root = np.linalg.inv(prior.whitener[d, g])
            noise = np.kron(np.eye(2), root @ root.T)
            error = ratings[..., d].ravel() - x @ prior.mean[d]
            jacobian = x * prior.sd[d]
            covariance = np.linalg.inv(np.eye(7) + jacobian.T @ np.linalg.solve(noise, jacobian))
            mean = covariance @ jacobian.T @ np.linalg.solve(noise, error)
            np.testing.assert_allclose(found.mean[d, g, h], mean, atol=1e-6)
            factor = found.factor[d, g, h]
            np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-6)
            marginal = (noise + jacobian @ jacobian.T) / small**2
            quadratic = error @ np.linalg.solve(marginal, error) / small**2
            log_evidence[g, h] = -(quadratic + np.linalg.slogdet(marginal)[1]) / 2
        difference = found.log_weight[d] - log_evidence
        np.testing.assert_allclose(difference, difference[0, 0], atol=1e-6)


def test_without_a_rating_the_posterior_is_the_prior(prior):
    known = posterior.posterior(prior, jnp.zeros((0, 6, SEGMENTS, 7)), jnp.zeros((0, SEGMENTS, 2)))
    np.testing.assert_array_equal(known.mean, 0)
    np.testing.assert_allclose(known.factor, np.broadcast_to(np.eye(7), known.factor.shape))
    weights = posterior.mixture_weights(known.log_weight)
    np.testing.assert_allclose(weights, 1 / (9 * 6), rtol=1e-5)


def test_both_dimensions_tell_of_the_reaction():
    log_weight = jnp.zeros((2, 3, 2)).at[0, :, 1].set(np.log(3.0))
    weights = posterior.mixture_weights(log_weight)
    np.testing.assert_allclose(weights.sum(1), [[0.25, 0.75], [0.25, 0.75]], rtol=1e-5)


def test_gauss_newton_finds_the_mode_of_saturated_ratings(prior):
    song = designs()[:1].astype(np.float32)
    rating = np.full((1, SEGMENTS, 2), 0.8)
    known = jax.device_get(jax.jit(posterior.posterior)(prior, song, rating))

    def log_joint(u, gain, reaction):
        scale = np.array([1.0] + [prior.gain[0, gain]] * 6)
        theta = prior.mean[0] + prior.sd[0] * u
        error = 0.8 - np.tanh(song[0, reaction] * scale @ theta)
        return -((prior.whitener[0, gain] @ error) ** 2).sum() / 2 - (u**2).sum() / 2

    for gain in (0, 4, 8):
        mode = known.mean[0, gain, 2]
        best = log_joint(mode, gain, 2)
        for step in 0.1 * np.random.default_rng(0).normal(size=(20, 7)):
            assert log_joint(mode + step, gain, 2) < best + 1e-3


@pytest.fixture(scope="module")
def simulated(prior):
    """Returns 48 listeners with one rating each, and draws of their posteriors."""
    people = [listener for _, listener in simulation.draw_annotators(SETTINGS, "test")]
    songs = np.arange(len(people)) % 3
    ratings = np.stack([rate(p, s, i) for i, (p, s) in enumerate(zip(people, songs, strict=True))])

    @jax.jit
    @jax.vmap
    def draw(song, rating, key):
        known = posterior.posterior(prior, song[None], rating[None])
        return posterior.draw_listeners(prior, known, key, 256)

    keys = jax.random.split(jax.random.key(0), len(people))
    drawn = draw(designs()[songs].astype(np.float32), ratings, keys)
    return people, songs, ratings, jax.device_get(drawn)


def rate(listener: Listener, song: int, seed: int) -> np.ndarray:
    perceived = listeners.perceive(listener, cues()[song], START_S, SEGMENTS)
    return listeners.rate(np.random.default_rng([seed, song]), listener, perceived, SPREAD)


def test_the_posterior_is_calibrated(simulated, prior):
    """Errors of the posterior mean are as large as the posterior says, and below the prior's."""
    people, _, _, drawn = simulated
    truth = np.stack(
        [np.concatenate([p.offset[None], p.weights]).T for p in people]
    )  # [listeners, 2, 7]
    error = (truth - drawn.theta.mean(2)) / np.asarray(prior.sd)
    spread = drawn.theta.std(2) / np.asarray(prior.sd)
    # 672 standardized values, correlated within a listener: 4 standard errors of about 0.06.
    assert np.square(error / spread).mean() == pytest.approx(1, abs=0.25)
    assert np.square(error).mean() == pytest.approx(np.square(spread).mean(), rel=0.25)
    assert np.square(spread).mean() < 0.9
    log_gain = np.log(np.stack([p.gain for p in people]))
    correlation = np.corrcoef(log_gain[:, 0], np.log(drawn.gain[:, 0]).mean(1))[0, 1]
    assert correlation > 0.2


# ---- the curves ------------------------------------------------------------------------------


def test_a_listener_known_exactly_is_predicted_exactly():
    rng = np.random.default_rng(0)
    curve = np.cumsum(rng.normal(0, 0.05, (2, 1, SEGMENTS)), axis=-1).astype(np.float32)
    np.testing.assert_allclose(ideal.best_for_ccc(curve), curve[:, 0], atol=1e-6)


def expected_ccc(curve, ratings):
    """Averages the CCC of [2, L] with ratings [2, n, L], but those clipped to a line: [2]."""
    target = np.moveaxis(np.asarray(ratings), 0, -1)
    prediction = np.broadcast_to(np.asarray(curve).T, target.shape)
    scores = sequence_metrics(prediction, target, np.ones(target.shape[:2], bool))
    return np.nanmean(scores["ccc"], axis=0)


def test_the_best_curve_for_ccc_beats_the_mean_and_its_own_neighbors(prior, simulated):
    """It beats the mean on other draws, too; its neighbors on those that it is computed from."""
    _, songs, ratings, _ = simulated
    design = jnp.asarray(designs(), jnp.float32)
    known = jax.jit(posterior.posterior)(prior, design[songs[:1]], ratings[:1])

    @jax.jit
    def sample(key, noise):
        drawn = posterior.draw_listeners(prior, known, key, noise.level.shape[1])
        perceived = ideal.perceived_curves(drawn, design[4])
        return perceived, ideal.noisy_ratings(perceived, drawn.gain, noise)

    perceived, rated = sample(jax.random.key(0), ideal.rating_noise(SPREAD, SEGMENTS, 4096, 0))
    average = np.asarray(perceived.mean(1))
    best = np.asarray(ideal.best_for_ccc(rated))
    assert (best.std(1) > 1.2 * average.std(1)).all()
    held_out = sample(jax.random.key(1), ideal.rating_noise(SPREAD, SEGMENTS, 4096, 1))[1]
    assert (expected_ccc(best, held_out) > expected_ccc(average, held_out) + 0.02).all()
    mean = best.mean(1, keepdims=True)
    rng = np.random.default_rng(0)
    wave = np.stack([np.sin(np.arange(SEGMENTS) * f) for f in (0.2, 0.5, 1.0, 2.0)])
    neighbors = [mean + f * (best - mean) for f in (0.8, 0.95, 1.05, 1.25)]
    neighbors += [best + shift for shift in (0.05, 0.01, -0.01, -0.05)]
    neighbors += [best + 0.02 * (rng.normal(size=(2, 4)) @ wave) for _ in range(8)]
    score = expected_ccc(best, rated)
    for neighbor in neighbors:
        assert (score > expected_ccc(neighbor, rated) - 1e-5).all()  # it is iterated to 1e-5


def test_one_song_of_the_right_listener_helps_and_of_another_hurts(prior, simulated):
    people, songs, ratings, _ = simulated
    count = len(people)
    query = np.broadcast_to([3, 4, 5], (count, 3))
    target = np.stack([[rate(p, s, i) for s in (3, 4, 5)] for i, p in enumerate(people)])
    noise = ideal.rating_noise(SPREAD, SEGMENTS, 128)
    table = designs().astype(np.float32)
    keys = jax.random.split(jax.random.key(0), count)

    def score(support, shown):
        curves = ideal.adapted_curves(prior, noise, table, support, shown, query, keys)
        scores = {}
        for name, curve in curves._asdict().items():
            flat = np.asarray(curve).reshape(-1, SEGMENTS, 2), target.reshape(-1, SEGMENTS, 2)
            scores[name] = sequence_metrics(*flat, np.ones(flat[0].shape[:2], bool))
        return np.nanmean(scores["ccc"]["ccc"]), scores["rmse"]["rmse"].mean()

    one = songs[:, None], ratings[:, None]
    right_ccc, right_rmse = score(*one)
    shifted = [np.roll(part, 3, axis=0) for part in one]  # another listener of the same song
    wrong_ccc, wrong_rmse = score(*shifted)
    nothing_ccc, nothing_rmse = score(one[0][:, :0], one[1][:, :0])
    assert right_ccc > nothing_ccc + 0.02 and nothing_ccc > wrong_ccc
    assert right_rmse < nothing_rmse < wrong_rmse


@pytest.mark.parametrize(
    "changes",
    [{"level_error_sd": (0.0, 0.0), "drift_sd": (0.0, 0.0)}, {"lag_s": 0.0, "inertia_s": 0.0}],
)
def test_extreme_simulators_give_finite_curves(changes):
    spread = dataclasses.replace(SPREAD, **changes)
    prior = in_float32(posterior.prior_of(spread, SEGMENTS))
    table = designs(spread).astype(np.float32)
    listener = listeners.draw_listener(np.random.default_rng(0), spread)
    perceived = listeners.perceive(listener, cues()[0], START_S, SEGMENTS)
    curves = ideal.adapted_curves(
        prior,
        ideal.rating_noise(spread, SEGMENTS, 128),
        table,
        np.zeros((48, 1), int),
        np.broadcast_to(perceived, (48, 1, SEGMENTS, 2)),
        np.broadcast_to([3, 4, 5], (48, 3)),
        jax.random.split(jax.random.key(0), 48),
    )
    assert all(np.isfinite(curve).all() for curve in curves)
