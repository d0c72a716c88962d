"""Evolution strategies, persistent ones too: meta-gradients from losses alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.errors import UserError, at_least
from dsaml_jax.meta.episode import Episode
from dsaml_jax.meta.estimators.base import EpisodeEstimator, meta_arrays, with_zeros
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Problem, Task, TaskResult
from dsaml_jax.meta.steps import Carry, inner_parts
from dsaml_jax.meta.trees import merge, split_floating

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray

PERTURBATION_STREAM = 2**32 - 3
"""Folded into the inner key for the perturbations of a window."""


class Particles(NamedTuple):
    """Perturbed inner loops between two windows.

    Attributes:
      carry: weights, optimizer state and state of the loss, of [pairs, 2] particles.
      sums: sum of each pair's perturbations so far, [pairs, ...].
      window: number of windows that have run.
    """

    carry: Carry
    sums: Any
    window: jax.Array


@dataclasses.dataclass(frozen=True)
class EvolutionStrategies(EpisodeEstimator):
    """Antithetic evolution strategies, and persistent ones (Vicol, Metz & Sohl-Dickstein 2021).

    The K inner steps are cut into W windows. In each window w, pair i draws ε_(i,w) ~ N(0, σ² I),
    and its two inner loops run on with meta-parameters θ ± ε_(i,w). With L± the query losses after
    the window, and ξ_(i,w) the sum of the pair's perturbations in windows up to w,
      g = 1/W Σ_w mean_i ξ_(i,w) (L+ - L-) / (2 σ²)
    is an unbiased estimate of the gradient of the mean query loss after each window, smoothed by
    the perturbations. With W = 1 this is the query loss after the last step. Nothing is
    differentiated, so losses may have any derivative or none, and loops may be long or chaotic;
    memory does not grow with K. The variance grows with the number of meta-parameters.

    Called as an estimator, all windows run with the same meta-parameters. `start` and `advance` run
    one window at a time, between which an outer optimizer may move them.

    Attributes:
      sigma: σ > 0, the standard deviation of perturbations.
      pairs: number of antithetic pairs.
      windows: number of windows W; K must be a multiple of it.
      at_once: pairs that are computed at once; None for all.

    Raises:
      UserError: a value is out of range.
    """

    sigma: float
    pairs: int
    windows: int = 1
    at_once: int | None = None

    def __post_init__(self):
        if not self.sigma > 0:
            raise UserError(f"sigma is {self.sigma}; expected a positive number.")
        at_least("pairs", self.pairs, 1)
        at_least("windows", self.windows, 1)
        at_least("at_once", self.at_once or 1, 1)

    def start(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: PRNGKeyArray,
    ) -> Particles:
        """Returns the particles before the first window."""
        episode, meta_params = Episode.create(problem, inner, task, key), meta_arrays(meta_params)
        return self._start(episode, meta_params)

    def advance(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: PRNGKeyArray,
        particles: Particles,
    ) -> tuple[Float[Array, ""], MetaParams, Particles]:
        """Runs one window; returns its mean loss, the gradient of that, and the particles.

        Arguments other than the meta-parameters must be those of `start`. After the last window,
        the particles start afresh.
        """
        episode, meta_params = Episode.create(problem, inner, task, key), meta_arrays(meta_params)
        return self._advance(episode, meta_params, particles)

    def estimate(
        self, episode: Episode, meta_params: MetaParams, progress: jax.Array | float | None
    ) -> tuple[TaskResult, MetaParams]:
        """Returns the result, at meta-parameters that are not perturbed, and the estimate."""
        del progress

        def window(carry, _):
            particles, total = carry
            _, gradient, particles = self._advance(episode, meta_params, particles)
            return (particles, jax.tree.map(jnp.add, total, gradient)), None

        start = self._start(episode, meta_params), jax.tree.map(jnp.zeros_like, meta_params)
        (_, total), _ = jax.lax.scan(window, start, length=self.windows)
        smooth, other = split_floating(total)
        gradient = with_zeros(jax.tree.map(lambda g: g / self.windows, smooth), other)
        adapted = episode.adapt(meta_params)
        value, auxiliary = episode.query_loss(adapted.params, adapted.state)
        return TaskResult(value, adapted.losses, auxiliary, {}), gradient

    def _start(self, episode: Episode, meta_params: MetaParams) -> Particles:
        steps = episode.inner.steps
        if steps % self.windows or not steps:
            raise UserError(
                f"windows is {self.windows}, but inner.steps is {steps}; expected a number of "
                "steps that is a positive multiple of it."
            )
        parts = _parts(episode, meta_params)
        smooth, _ = split_floating(meta_params)

        def stacked(tree, *shape):
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), tree)

        sums = jax.tree.map(jnp.zeros_like, stacked(smooth, self.pairs))
        return Particles(stacked(parts.start, self.pairs, 2), sums, jnp.zeros((), int))

    def _advance(
        self, episode: Episode, meta_params: MetaParams, particles: Particles
    ) -> tuple[jax.Array, MetaParams, Particles]:
        """Runs one window of all particles."""
        smooth, other = split_floating(meta_params)
        window, fresh = particles.window, particles.window == 0
        size = episode.inner.steps // self.windows
        stream = jax.random.fold_in(episode.inner_key, PERTURBATION_STREAM)
        keys = jax.random.split(jax.random.fold_in(stream, window), self.pairs)

        def particle(meta_params, carry):
            parts = _parts(episode, meta_params)
            carry = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), parts.start, carry)
            inputs = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, window * size, size), parts.inputs
            )
            carry, _ = jax.lax.scan(parts.step_with(None), carry, inputs)
            params = merge(carry.adapted, parts.frozen)
            return carry, episode.query_loss(params, carry.state)[0]

        def pair(arguments):
            key, carry, total = arguments
            noise = _normal(key, smooth, self.sigma)
            # Later windows do not see the start of the adapted weights: perturbing it adds noise.
            of_start, of_frozen = episode.inner.partition(noise.params)
            of_start = jax.tree.map(lambda n: jnp.where(fresh, n, 0.0), of_start)
            noise = noise._replace(params=merge(of_start, of_frozen))
            total = jax.tree.map(lambda t, n: jnp.where(fresh, 0.0, t) + n, total, noise)

            def perturbed(sign):
                return merge(jax.tree.map(lambda x, n: x + sign * n, smooth, noise), other)

            both = jax.tree.map(lambda *x: jnp.stack(x), perturbed(1.0), perturbed(-1.0))
            carry, values = jax.vmap(particle)(both, carry)
            slope = (values[0] - values[1]) / (2 * self.sigma**2)
            return carry, total, values.mean(), jax.tree.map(lambda t: slope * t, total)

        arguments = keys, particles.carry, particles.sums
        batch = min(self.at_once or self.pairs, self.pairs)
        carry, sums, values, gradients = jax.lax.map(pair, arguments, batch_size=batch)
        gradient = jax.tree.map(lambda g: g.mean(0), gradients)
        following = Particles(carry, sums, (window + 1) % self.windows)
        return values.mean(), with_zeros(gradient, other), following


def _parts(episode: Episode, meta_params: MetaParams):
    return inner_parts(
        episode.problem, episode.inner, meta_params, episode.task.support, episode.inner_key
    )


def _normal(key: PRNGKeyArray, like: Any, sigma: float) -> Any:
    """Returns N(0, σ²) noise in the shapes and dtypes of a tree."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree,
        [sigma * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)],
    )
