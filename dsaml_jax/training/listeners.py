"""Listeners as Gaussian deviations from a shared output layer: inference in closed form, and EM.

The curve of listener j is x_t (w + d_j), one dimension at a time, where x_t is what the output
layer reads in segment t followed by a 1 (Q = P + 1 values), w the shared weights and bias, and
d_j ~ N(0, S). Ratings have the likelihood of `model.likelihood`, which is Gaussian, so the
posterior of d_j given all of the listener's ratings is

    N(m_j, V_j),  V_j⁻¹ = S⁻¹ + Σ_i X_iᵀ X_i,  m_j = V_j Σ_i X_iᵀ e_i

with X_i and e_i the whitened basis and error of rating i. With the posteriors of all listeners, EM
(Dempster et al. 1977) updates w, S and the precisions of the likelihood in closed form:

    w <- w + mean_j m_j,  S <- mean_j (m_j m_jᵀ + V_j) after centering the m_j,
    precision <- number of squares / their expected sum.

The basis is the network's, which learns by gradients between the updates. It is the prior S that
lets ONE song tell which way a new listener deviates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.data.songs import Raters
from dsaml_jax.data.tables import Tables
from dsaml_jax.model.likelihood import Noise, Whitened, whiten

if TYPE_CHECKING:
    from jaxtyping import Array, Float

_SONGS_AT_ONCE = 8

_SMALLEST_VARIANCE = 1e-5
"""Added to the diagonal of S, which a posterior mean of few listeners leaves singular."""


class Posterior(NamedTuple):
    """What is known of each of A listeners' deviations, for (arousal, valence).

    Attributes:
      mean: [A, 2, Q].
      covariance: [A, 2, Q, Q].
    """

    mean: Float[Array, "annotators 2 weights"]
    covariance: Float[Array, "annotators 2 weights weights"]


class Listeners(NamedTuple):
    """The part of the state that belongs to the listeners' stage.

    Attributes:
      basis: [N, S, P], what the output layer reads, as of the step that last drew each song; 0 for
        songs that were not drawn yet.
      seen: [N] bool, whether a song was drawn.
      posterior: as of the last inference; all 0 before the first.
      prior: S, [2, Q, Q].
    """

    basis: Float[Array, "songs segments hidden"]
    seen: jax.Array
    posterior: Posterior
    prior: Float[Array, "2 weights weights"]


class Head(NamedTuple):
    """The shared output layer and the parameters of the likelihood.

    Attributes:
      weights: w, [Q, 2]; the bias is last.
      noise: see `model.likelihood`.
    """

    weights: Float[Array, "weights 2"]
    noise: Noise


def initial_listeners(songs: int, segments: int, hidden: int, annotators: int, sd: float):
    """Returns `Listeners` before anything is known, with the prior S = sd² I."""
    size = hidden + 1
    return Listeners(
        basis=jnp.zeros((songs, segments, hidden)),
        seen=jnp.zeros(songs, bool),
        posterior=Posterior(
            jnp.zeros((annotators, 2, size)), jnp.zeros((annotators, 2, size, size))
        ),
        prior=jnp.broadcast_to(sd**2 * jnp.eye(size), (2, size, size)),
    )


class Statistics(NamedTuple):
    """Sufficient statistics of the ratings of A listeners, by dimension, and of all together.

    Attributes:
      level_gram: Σ_i x̄_i x̄_iᵀ of the levels x̄ of the basis, [A, Q, Q].
      level_error: Σ_i x̄_i ē_i with the levels ē of the errors, [A, 2, Q].
      movement_gram: Σ_i Σ_t u_it u_itᵀ of the innovations u of the basis, [A, 2, Q, Q].
      movement_error: Σ_i Σ_t u_it w_it with the innovations w of the errors, [A, 2, Q].
      squares: (Σ ē², Σ w²), [2, 2].
      counts: numbers of levels and of innovations, [2].
    """

    level_gram: Float[Array, "annotators weights weights"]
    level_error: Float[Array, "annotators 2 weights"]
    movement_gram: Float[Array, "annotators 2 weights weights"]
    movement_error: Float[Array, "annotators 2 weights"]
    squares: Float[Array, "2 2"]
    counts: Float[Array, 2]


def update_listeners(
    listeners: Listeners, head: Head, tables: Tables, raters: Raters
) -> tuple[Listeners, Head]:
    """Infers all listeners from their ratings, and updates prior, shared weights and precisions."""
    found = statistics(listeners, head, tables, raters)
    posterior = infer(found, head.noise, listeners.prior, tables.valid.shape[-1])
    shift = posterior.mean.mean(0)
    mean = posterior.mean - shift
    prior = jnp.einsum("adp,adq->dpq", mean, mean) / len(mean) + posterior.covariance.mean(0)
    level, movement = _expected_errors(found, posterior)
    noise = head.noise._replace(
        log_level=jnp.log(found.counts[0] / level), log_movement=jnp.log(found.counts[1] / movement)
    )
    return (
        listeners._replace(
            posterior=Posterior(mean, posterior.covariance),
            prior=prior + _SMALLEST_VARIANCE * jnp.eye(prior.shape[-1]),
        ),
        Head(head.weights + shift.T, noise),
    )


def infer(
    found: Statistics, noise: Noise, prior: Float[Array, "2 weights weights"], segments: int
) -> Posterior:
    """Computes the posterior of every listener."""
    level, movement = precisions(noise, segments)
    precision = (
        level[:, None, None] * found.level_gram[:, None]
        + movement[:, None, None] * found.movement_gram
        + jnp.linalg.inv(prior)
    )
    covariance = jnp.linalg.inv(precision)
    pull = level[:, None] * found.level_error + movement[:, None] * found.movement_error
    return Posterior(jnp.einsum("adpq,adq->adp", covariance, pull), covariance)


def statistics(listeners: Listeners, head: Head, tables: Tables, raters: Raters) -> Statistics:
    """Sums the sufficient statistics song by song, over the songs that were seen.

    A song's basis is the same for all its raters, who differ in the segments that they rated. With
    v_t = x_(t+1) - r x_t and the level x̄ over the rated segments, u_t = v_t - (1 - r) x̄ where both
    segments are rated, so that the moments of u follow from those of v.
    """
    correlation = jax.nn.sigmoid(head.noise.correlation)
    annotators, size = len(tables.counts), listeners.prior.shape[-1]

    def of_song(basis, seen, ratings, rated):
        x = with_one(basis)
        valid = tables.valid[ratings] & (rated & seen)[:, None]
        error = whiten(tables.curve[ratings] - x @ head.weights, valid, correlation)
        weight = valid.astype(x.dtype)
        pairs = weight[:, 1:] * weight[:, :-1]
        level = weight @ x / jnp.maximum(weight.sum(-1, keepdims=True), 1)

        def of_dimension(correlation, w):
            v = x[1:] - correlation * x[:-1]
            offset, total = (1 - correlation) * level, pairs @ v
            cross = offset[:, :, None] * total[:, None]
            products = (v[:, :, None] * v[:, None]).reshape(len(v), -1)
            gram = (pairs @ products).reshape(cross.shape) - cross - cross.swapaxes(1, 2)
            gram += pairs.sum(-1)[:, None, None] * offset[:, :, None] * offset[:, None]
            return gram, w @ v - offset * w.sum(-1, keepdims=True)

        movement_gram, movement_error = jax.vmap(of_dimension, (0, -1), (1, 1))(
            correlation, error.innovations
        )
        by_rating = (
            level[:, :, None] * level[:, None],
            error.level[..., None] * level[:, None],
            movement_gram,
            movement_error,
        )
        squares = jnp.stack([(error.level**2).sum(0), (error.innovations**2).sum((0, 1))])
        return by_rating, squares, jnp.stack([valid.any(-1).sum(), pairs.sum()])

    def add(total, songs):
        by_rating, squares, counts = jax.vmap(of_song)(*songs)
        annotator = tables.annotator_of[songs[2]].ravel()
        sums = (
            sum_.at[annotator].add(each.reshape(-1, *each.shape[2:]))
            for sum_, each in zip(total[:4], by_rating, strict=True)
        )
        overall = total.squares + squares.sum(0), total.counts + counts.sum(0)
        return Statistics._make([*sums, *overall]), None

    zero = Statistics(
        jnp.zeros((annotators, size, size)),
        jnp.zeros((annotators, 2, size)),
        jnp.zeros((annotators, 2, size, size)),
        jnp.zeros((annotators, 2, size)),
        jnp.zeros((2, 2)),
        jnp.zeros(2),
    )
    songs = (listeners.basis, listeners.seen, *map(jnp.asarray, raters))
    chunks = jax.tree.map(_in_chunks, songs)
    return jax.lax.scan(add, zero, chunks)[0]


def _in_chunks(x: jax.Array) -> jax.Array:
    """Cuts the first axis into chunks, padded with zeros: songs that were not seen."""
    missing = -len(x) % _SONGS_AT_ONCE
    padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(-1, _SONGS_AT_ONCE, *x.shape[1:])


def _expected_errors(found: Statistics, posterior: Posterior) -> Float[Array, "2 2"]:
    """Computes the expected squares of levels and of innovations by dimension, over all ratings."""
    moment = posterior.covariance + jnp.einsum("adp,adq->adpq", posterior.mean, posterior.mean)
    level = jnp.einsum("adpq,apq->d", moment, found.level_gram)
    movement = jnp.einsum("adpq,adpq->d", moment, found.movement_gram)
    errors = [
        jnp.einsum("adp,adp->d", posterior.mean, error)
        for error in (found.level_error, found.movement_error)
    ]
    return found.squares - 2 * jnp.stack(errors) + jnp.stack([level, movement])


def expected_squares(
    x: Float[Array, "segments weights"],
    error: Float[Array, "segments 2"],
    valid: jax.Array,
    mean: Float[Array, "2 weights"],
    covariance: Float[Array, "2 weights weights"],
    noise: Noise,
) -> tuple[Float[Array, " dimensions"], Float[Array, " dimensions"]]:
    """Computes the expected squares of one rating's level and innovations, [2] each.

    Args:
      x: the basis with a 1.
      error: rating minus the curve of the shared weights.
      valid: [S] bool.
      mean: of the listener's deviation.
      covariance: of it.
      noise: parameters of the likelihood.
    """

    def of_dimension(noise, error, mean, covariance):
        features, target = whitened(x, error, valid, noise)
        rest = whitened_rest(target, features, mean)
        level = (rest.level**2).sum() + features.level @ covariance @ features.level
        spread = ((features.innovations @ covariance) * features.innovations).sum()
        return level, (rest.innovations**2).sum() + spread

    return jax.vmap(of_dimension, in_axes=(0, -1, 0, 0))(noise, error, mean, covariance)


def whitened(
    x: jax.Array, error: jax.Array, valid: jax.Array, noise: Noise
) -> tuple[Whitened, Whitened]:
    """Whitens a basis [..., S, Q] and an error [..., S] of one dimension alike."""
    correlation = jax.nn.sigmoid(noise.correlation)[None]
    return whiten(x, valid, correlation), whiten(error[..., None], valid, correlation)


def whitened_rest(target: Whitened, features: Whitened, mean: jax.Array) -> Whitened:
    """Returns the whitened error that is left after a deviation `mean`."""
    return Whitened(
        target.level[..., 0] - features.level @ mean,
        target.innovations[..., 0] - features.innovations @ mean,
    )


def precisions(noise: Noise, segments: int) -> tuple[jax.Array, jax.Array]:
    """Returns the precision l of a level, and p n / (S - 1) of an innovation."""
    share = jnp.exp(noise.log_count) / max(segments - 1, 1)
    return jnp.exp(noise.log_level), jnp.exp(noise.log_movement) * share


def with_one(basis: Float[Array, "*batch hidden"]) -> Float[Array, "*batch weights"]:
    """Appends a 1, whose weight is the bias."""
    return jnp.concatenate([basis, jnp.ones_like(basis[..., :1])], axis=-1)


def directions(listeners: Listeners, count: int) -> Float[Array, "count weights 2"]:
    """Returns the leading directions in which listeners deviate, scaled to one deviation each.

    The covariance of all deviations, over both dimensions, is S within a dimension and that of the
    posterior means between them. Directions are ranked by the movement of curves that they cause:
    by the eigenvalues after each weight is multiplied by the deviation of what it reads. With
    independent z_k ~ N(0, 1), Σ_k z_k direction_k has the covariance, as far as `count` reaches.
    """
    mean = listeners.posterior.mean
    annotators, _, size = mean.shape
    flat = mean.reshape(annotators, -1)
    between = (flat.T @ flat / annotators).reshape(2, size, 2, size)
    for dimension in range(2):
        between = between.at[dimension, :, dimension].set(listeners.prior[dimension])
    deviation = jnp.append(jnp.maximum(listeners.basis.std((0, 1)), 1e-6), 1.0)
    scale = jnp.tile(deviation, 2)
    values, vectors = jnp.linalg.eigh(between.reshape(2 * size, -1) * jnp.outer(scale, scale))
    leading = vectors[:, ::-1][:, :count] * jnp.sqrt(jnp.maximum(values[::-1][:count], 0))
    return (leading / scale[:, None]).T.reshape(-1, 2, size).swapaxes(1, 2)
