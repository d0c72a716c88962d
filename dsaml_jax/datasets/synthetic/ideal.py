"""The best predictions of a simulated listener's ratings that are possible without hearing errors.

Given draws of the listener from the posterior (`dsaml_jax.datasets.synthetic.posterior`), with
perceived curves p_s and noisy ratings r_s of a song, two curves are best, each for one metric:

- RMSE: the mean of p_s, which minimizes the expected squared error.
- CCC: the curve c that maximizes the sum of N_s / D_s, where N_s = 2 cov(c, r_s) and
  D_s = var c + var r_s + (mean c - mean r_s)². Its gradient is zero at the fixed point

      c - mean c = sum (r_s - mean r_s) / D_s  /  sum q_s        with q_s = N_s / D_s²
      mean c     = sum q_s mean r_s  /  sum q_s

  CCC depends on how widely a curve moves, so this curve moves more than the mean of p_s.

They are found with the songs' true cues, which no model is given, so they bound what a model of the
sound can reach. `ideal_curves` never sees a rating of the songs that it predicts.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.datasets.synthetic.listeners import ListenerSpread, drift_correlation
from dsaml_jax.datasets.synthetic.posterior import (
    Listeners,
    Posterior,
    Prior,
    draw_listeners,
    posterior,
)

_ITERATIONS = 30
"""Damped fixed-point iterations; after 30, neighbors of a curve can still be better by 1e-5."""


class IdealCurves(NamedTuple):
    """Predicted curves [..., L, 2], as JAX or NumPy arrays.

    Attributes:
      ccc: with the best expected CCC.
      rmse: with the best expected squared error, the mean.
    """

    ccc: Any
    rmse: Any


class Noise(NamedTuple):
    """Rating noise of n ratings.

    Attributes:
      level: [2, n], the level errors.
      drift: [2, n, L], the drift at a gain of 1.
    """

    level: jax.Array | np.ndarray
    drift: jax.Array | np.ndarray


@functools.lru_cache(maxsize=4)
def rating_noise(spread: ListenerSpread, segments: int, count: int, seed: int = 0) -> Noise:
    """Draws the noise of `count` ratings of L segments by listeners of gain 1."""
    rng = np.random.default_rng(seed)
    time = np.arange(segments)
    correlation = drift_correlation(spread) ** np.abs(time[:, None] - time)
    shocks = rng.standard_normal((2, count, segments))
    drift = shocks @ np.linalg.cholesky(correlation).T * np.reshape(spread.drift_sd, (2, 1, 1))
    level = rng.standard_normal((2, count)) * np.reshape(spread.level_error_sd, (2, 1))
    return Noise(level.astype(np.float32), drift.astype(np.float32))


def perceived_curves(listeners: Listeners, song: jax.Array) -> jax.Array:
    """Computes what n listeners perceive of a song: [2, n, L].

    Args:
      listeners: the listeners.
      song: [H, L, 7], its design.
    """
    scale = jnp.where(jnp.arange(7) == 0, 1.0, listeners.gain[..., None])
    own = jax.nn.one_hot(listeners.reaction, len(song), dtype=song.dtype)
    # As one matrix product: every listener has the coefficient 0 for all reactions but their own.
    coefficients = own[..., None] * (listeners.theta * scale)[..., None, :]
    features = jnp.moveaxis(song, 1, -1).reshape(-1, song.shape[1])
    return jnp.tanh(coefficients.reshape(*coefficients.shape[:2], -1) @ features)


def noisy_ratings(perceived: jax.Array, gain: jax.Array, noise: Noise) -> jax.Array:
    """Adds noise to perceived curves [2, n, L] of listeners with gains [2, n]: [2, 2 n, L].

    Every curve gets its noise with both signs, so that the noise averages out with few draws.
    """
    error = noise.level[..., None] + gain[..., None] * noise.drift
    return jnp.clip(jnp.concatenate([perceived + error, perceived - error], axis=1), -1, 1)


def best_for_ccc(ratings: jax.Array) -> jax.Array:
    """Computes the curve [2, L] with the best mean CCC with ratings [2, n, L]: the fixed point."""
    level, variance = ratings.mean(-1), ratings.var(-1)
    movement = ratings - ratings.mean(-1, keepdims=True)

    def step(curve, _):
        mean = curve.mean(-1, keepdims=True)
        centered = curve - mean
        spread = (centered**2).mean(-1, keepdims=True) + variance + (mean - level) ** 2
        covariance = jnp.einsum("dl,dnl->dn", centered, movement) / curve.shape[-1]
        q = 2 * covariance / spread**2
        # Bounded below, so that a curve that no listener follows does not explode.
        total = jnp.maximum(q.sum(-1), 1e-3 * (1 / spread).sum(-1))[:, None]
        moved = jnp.einsum("dnl,dn->dl", movement, 1 / spread) / total
        place = jnp.clip((q * level).sum(-1, keepdims=True) / total, -1, 1)
        return (curve + place + moved) / 2, None

    curve, _ = jax.lax.scan(step, ratings.mean(1), length=_ITERATIONS)
    return curve


def ideal_curves(
    prior: Prior, known: Posterior, noise: Noise, songs: jax.Array, key: jax.Array
) -> IdealCurves:
    """Predicts Q songs for one listener: curves [Q, L, 2].

    Args:
      prior: of listeners.
      known: the posterior of this listener.
      noise: of n ratings; n listeners are drawn.
      songs: [Q, H, L, 7], designs.
      key: of the draws.
    """
    listeners = draw_listeners(prior, known, key, noise.level.shape[1])

    def one(song):
        perceived = perceived_curves(listeners, song)
        ratings = noisy_ratings(perceived, listeners.gain, noise)
        return IdealCurves(best_for_ccc(ratings).T, perceived.mean(1).T)

    return jax.lax.map(one, songs)


def adapted_curves(
    prior: Prior,
    noise: Noise,
    designs: jax.Array | np.ndarray,
    support: jax.Array | np.ndarray,
    ratings: jax.Array | np.ndarray,
    query: jax.Array | np.ndarray,
    keys: jax.Array,
) -> IdealCurves:
    """Predicts Q songs for each of E listeners who rated k songs: curves [E, Q, L, 2].

    Args:
      prior: of ratings of S segments.
      noise: of n ratings of L >= S segments; n listeners are drawn for each posterior.
      designs: [N, H, L, 7], of all songs.
      support: [E, k], the rated songs; k = 0 for the prediction for an unknown listener.
      ratings: [E, k, S, 2].
      query: [E, Q], the songs to predict.
      keys: [E], of the draws.
    """
    known = _posteriors(prior, designs, support, ratings)
    return _curves(prior, known, noise, designs, query, keys)


# Two programs, because only the smaller one depends on k.


@jax.jit
def _posteriors(
    prior: Prior, designs: jax.Array, support: jax.Array, ratings: jax.Array
) -> Posterior:
    songs = designs[support, :, : prior.whitener.shape[-1]]
    return jax.vmap(posterior, (None, 0, 0))(prior, songs, ratings)


@jax.jit
def _curves(
    prior: Prior,
    known: Posterior,
    noise: Noise,
    designs: jax.Array,
    query: jax.Array,
    keys: jax.Array,
) -> IdealCurves:
    return jax.vmap(ideal_curves, (None, 0, None, 0, 0))(prior, known, noise, designs[query], keys)
