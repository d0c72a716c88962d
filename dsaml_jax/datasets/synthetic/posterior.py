"""What ratings reveal about a simulated listener, if the simulator and the songs' cues are known.

A listener rates song i (`dsaml_jax.datasets.synthetic.listeners`) as

    r_i = tanh(X_i θ) + e_i,    e_i ~ N(0, C),    C = level² 1 1' + (gain · drift)² A + ε² I

for each dimension, with θ = (offset, weights of the 6 cues), X_i the delayed and integrated cues of
the song times the gain, with a column of ones, and A the autocorrelation of the drift. The prior of
θ is Gaussian: θ = mean + sd u, u ~ N(0, I). Given gain, lag and inertia, the posterior of u is
approximated by a Gaussian around its mode (Laplace: Tierney & Kadane 1986), which Gauss-Newton
steps find; where tanh is linear it is exact. Gain, lag and inertia are on a grid of equally likely
values, each weighted by the Laplace approximation of its evidence. Lag and inertia are the same for
both dimensions, gains are not. The clipping of ratings to [-1, 1] is ignored.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.datasets.synthetic.listeners import (
    ListenerSpread,
    at_ratings,
    average_listener,
    drift_correlation,
    fine_times,
    integrate,
)

_GAINS, _LAGS, _INERTIAS = 9, 3, 2
"""Number of grid values."""

_ROUNDING = 1e-3
"""ε, about the resolution of a rating; it keeps C invertible without drift."""

_STEPS = 4
"""Gauss-Newton steps from the prior mean; more change nothing in float32."""


class Prior(NamedTuple):
    """How listeners differ, for ratings of S segments, with G gains.

    Attributes:
      mean: [2, 7], of (offset, weights) by dimension.
      sd: [2, 7], of the same.
      gain: [2, G], equally likely gains.
      whitener: [2, G, S, S], inverse Cholesky factors of C, lower triangular.
    """

    mean: np.ndarray | jax.Array
    sd: np.ndarray | jax.Array
    gain: np.ndarray | jax.Array
    whitener: np.ndarray | jax.Array


class Posterior(NamedTuple):
    """A mixture of Gaussians, one for each of G gains and H reactions (lag, inertia).

    Attributes:
      log_weight: [2, G, H], log evidence of each dimension's ratings, up to a constant.
      mean: [2, G, H, 7], of u.
      factor: [2, G, H, 7, 7], F with covariance F F' of u.
    """

    log_weight: jax.Array
    mean: jax.Array
    factor: jax.Array


class Listeners(NamedTuple):
    """n simulated listeners; the two dimensions are independent draws.

    Attributes:
      gain: [2, n].
      reaction: [2, n], index into `reactions`.
      theta: [2, n, 7], (offset, weights).
    """

    gain: jax.Array
    reaction: jax.Array
    theta: jax.Array


def prior_of(spread: ListenerSpread, segments: int) -> Prior:
    """Computes the prior of listeners who rate S segments of each song."""
    quantiles = [statistics.NormalDist().inv_cdf(p) for p in _midpoints(_GAINS)]
    log_sd = np.array(spread.log_gain_sd)[:, None]
    gain = np.exp(log_sd * quantiles - log_sd**2 / 2)
    average = average_listener(spread)
    time = np.arange(segments)
    correlation = drift_correlation(spread) ** np.abs(time[:, None] - time)
    level, drift = np.square(spread.level_error_sd), np.square(gain.T * spread.drift_sd).T
    covariance = (
        level[:, None, None, None]
        + drift[..., None, None] * correlation
        + _ROUNDING**2 * np.eye(segments)
    )
    return Prior(
        mean=np.concatenate([average.offset[:, None], average.weights.T], axis=1),
        sd=np.stack(
            [[o] + [w] * 6 for o, w in zip(spread.offset_sd, spread.weight_sd, strict=True)]
        ),
        gain=gain,
        whitener=np.linalg.inv(np.linalg.cholesky(covariance)),
    )


def reactions(spread: ListenerSpread) -> list[tuple[float, float]]:
    """Lists H equally likely pairs of lag and inertia in seconds, both uniform within 50 %."""
    return [
        (spread.lag_s * (0.5 + lag), spread.inertia_s * (0.5 + inertia))
        for lag in _midpoints(_LAGS)
        for inertia in _midpoints(_INERTIAS)
    ]


def design(
    spread: ListenerSpread, cues: Sequence[np.ndarray], ratings_start_s: float, ratings: int
) -> np.ndarray:
    """Computes what a listener of gain 1 perceives is linear in: [N, H, ratings, 7].

    A column of ones for the offset, then the delayed and integrated cues.

    Args:
      spread: its lag and inertia apply.
      cues: [steps, 6] of each of N songs.
      ratings_start_s: time of the first rating.
      ratings: number of ratings, two a second.
    """
    fine_s = fine_times(ratings_start_s, ratings)
    ones = np.ones((ratings, 1))

    def one(song: np.ndarray, reaction: tuple[float, float]) -> np.ndarray:
        integrated = integrate(song, fine_s, *reaction)
        values = at_ratings(integrated, fine_s, ratings_start_s, ratings)
        return np.concatenate([ones, values], axis=1)

    return np.stack([[one(song, reaction) for reaction in reactions(spread)] for song in cues])


def posterior(prior: Prior, songs: jax.Array, ratings: jax.Array) -> Posterior:
    """Computes the posterior of one listener; with no song (k = 0) it is the prior.

    Args:
      prior: of ratings of S segments.
      songs: [k, H, S, 7], the designs of the rated songs.
      ratings: [k, S, 2].
    """

    def node(mean, sd, gain, whitener, song, rating):
        """Fits u at one gain and reaction: song [k, S, 7], rating [k, S]."""
        x = song * jnp.where(jnp.arange(7) == 0, 1.0, gain)

        def whitened(u):
            perceived = jnp.tanh(x @ (mean + sd * u))
            jacobian = (1 - perceived**2)[..., None] * x * sd
            both = jnp.concatenate([(rating - perceived)[..., None], jacobian], axis=-1)
            both = (whitener @ both).reshape(-1, 8)
            return both[:, 0], both[:, 1:]

        def step(u, _):
            error, jacobian = whitened(u)
            precision = jnp.eye(7) + jacobian.T @ jacobian
            return jnp.linalg.solve(precision, jacobian.T @ (error + jacobian @ u)), None

        u, _ = jax.lax.scan(step, jnp.zeros_like(mean), length=_STEPS)
        error, jacobian = whitened(u)
        root = jnp.linalg.cholesky(jnp.eye(7) + jacobian.T @ jacobian)
        log_weight = (
            len(song) * jnp.log(jnp.diagonal(whitener)).sum()
            - (error @ error + u @ u) / 2
            - jnp.log(jnp.diagonal(root)).sum()
        )
        factor = jax.scipy.linalg.solve_triangular(root, jnp.eye(7), lower=True).T
        return Posterior(log_weight, u, factor)

    over_reactions = jax.vmap(node, (None, None, None, None, 1, None))
    over_gains = jax.vmap(over_reactions, (None, None, 0, 0, None, None))
    over_dimensions = jax.vmap(over_gains, (0, 0, 0, 0, None, 2))
    return over_dimensions(*prior, songs, ratings)


def mixture_weights(log_weight: jax.Array) -> jax.Array:
    """Computes the probability of each gain and reaction by dimension: [2, G, H].

    Both dimensions' ratings tell which reaction it is; each dimension has its own gain.
    """
    other = jax.nn.logsumexp(log_weight, axis=1, keepdims=True)[::-1]
    return jax.nn.softmax(log_weight + other, axis=(1, 2))


def draw_listeners(prior: Prior, known: Posterior, key: jax.Array, count: int) -> Listeners:
    """Draws an even number of listeners from a posterior.

    To reduce the variance of what is averaged over them, components are drawn by systematic
    resampling, and u in pairs of opposite deviations from its mean.
    """

    def one(mean, sd, gains, weight, means, factors, key):
        start_key, deviation_key = jax.random.split(key)
        cumulative = jnp.cumsum(weight.reshape(-1))
        places = (jax.random.uniform(start_key) + jnp.arange(count)) / count * cumulative[-1]
        component = jnp.searchsorted(cumulative, places).clip(0, weight.size - 1)
        gain, reaction = jnp.unravel_index(component, weight.shape)
        half = jax.random.normal(deviation_key, (count // 2, 7))
        deviation = jnp.stack([half, -half], axis=1).reshape(count, 7)
        u = means[gain, reaction]
        u += jnp.einsum("nij,nj->ni", factors[gain, reaction], deviation)
        return Listeners(gains[gain], reaction, mean + sd * u)

    weights = mixture_weights(known.log_weight)
    return jax.vmap(one)(
        prior.mean,
        prior.sd,
        prior.gain,
        weights,
        known.mean,
        known.factor,
        jax.random.split(key),
    )


def _midpoints(count: int) -> list[float]:
    """Divides (0, 1) into equal parts and returns their midpoints."""
    return [(i + 0.5) / count for i in range(count)]
