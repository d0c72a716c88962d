"""Predictions for an evaluation set, with one set of weights or adapted to each episode."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.tables import Tables
from dsaml_jax.evaluation.encoding import curves_of, features_of, map_encoded
from dsaml_jax.evaluation.protocols import EvalSet
from dsaml_jax.evaluation.splicing import splice
from dsaml_jax.evaluation.windows import Clips, episode_windows
from dsaml_jax.meta import adapt
from dsaml_jax.model import DSAML, DSAMLConfig, Output
from dsaml_jax.model.objective import Batch, dsaml_problem, encoder_is_frozen
from dsaml_jax.model.weights import Weights

_WINDOWS = 8
"""Largest number of windows of an episode that are predicted at once."""

_FEATURE_BYTES = 2**30
"""The encoder's features of an evaluation set are computed once for all episodes if they fit in
this much memory."""

Predictor = Callable[[Weights, EvalSet, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(weights, evaluation set, support [E, k]) -> (curves [M, L, 2], losses [E, K + 1])."""


def predict_windows(model: DSAMLConfig, weights: Weights, eval_set: EvalSet) -> np.ndarray:
    """Predicts every window of an evaluation set with one set of weights: [U, S, 2]."""
    return map_encoded(curves_of, model, weights.variables, eval_set.inputs, eval_set.windows)


@functools.partial(jax.jit, static_argnums=0)
def predict_clips(model: DSAMLConfig, variables: dict[str, Any], clips: Clips) -> jax.Array:
    """Predicts the curves of clips, [N, S, 2]."""
    return cast(Output, DSAML(model).apply(variables, *clips)).curve


@functools.partial(jax.jit, static_argnums=0)
def encode_clips(model: DSAMLConfig, variables: dict[str, Any], clips: Clips) -> jax.Array:
    """Returns the encoder's features of clips, [N, S, D]."""
    return DSAML(model).apply(variables, *clips, method="encode")[0]


def make_adapter(
    model: DSAMLConfig, inner: InnerConfig
) -> Callable[[Weights, Batch], tuple[Any, jax.Array]]:
    """Makes a function (weights, support) -> (adapted weights, losses [K + 1]).

    It is deterministic: dropout is off. The losses are those before each step and after the last.
    """
    problem, loop = dsaml_problem(model, train=False), inner.loop()

    def adapter(weights: Weights, batch: Batch) -> tuple[Any, jax.Array]:
        key = jax.random.key(0)  # required, but nothing is random without dropout
        batch = batch._replace(batch_stats=weights.batch_stats)
        adapted = adapt(problem, loop, weights.meta_params, batch, key, exact_steps=0)
        last = problem.loss(adapted.params, batch, key)
        return adapted.params, jnp.append(adapted.losses, last)

    return adapter


def make_predictor(model: DSAMLConfig, inner: InnerConfig, chunk: int) -> Predictor:
    """Makes a function that adapts to each episode's support and predicts what it tests.

    It is deterministic: dropout is off. The inner loop `inner` (K steps, may be 0) uses the learned
    rates of the weights, if any. The losses it returns are the support loss before each step and
    after the last.

    Args:
      model: the model.
      inner: the inner loop.
      chunk: episodes computed at once; of each, up to `_WINDOWS` windows at once.
    """
    loop = inner.loop()

    def curves(params, batch_stats, clips: Clips):
        return predict_clips(model, {"params": params, "batch_stats": batch_stats}, clips)

    def heads(params, features):
        return DSAML(model).apply({"params": params}, features, method="predict")

    adapt_many = jax.jit(jax.vmap(make_adapter(model, inner), in_axes=(None, 0)))
    curves_many = jax.jit(jax.vmap(curves, in_axes=(0, None, 0)))
    heads_many = jax.jit(jax.vmap(heads))

    def predict(
        weights: Weights, eval_set: EvalSet, support: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        plan, segments = eval_set.plan, eval_set.corpus.segments

        def adapt_to(episodes: np.ndarray, tables: Tables = eval_set.corpus.tables):
            return adapt_many(weights, tables.batch(support[episodes], None))

        def predict_whole(params, windows: np.ndarray):
            return curves_many(params, weights.batch_stats, eval_set.clips(windows))

        size = 4 * len(plan.at) * segments * model.dim
        if not encoder_is_frozen(loop, weights.params) or size > _FEATURE_BYTES:
            return _predict(eval_set, len(support), chunk, adapt_to, predict_whole)
        # The adapted models differ only in their heads: encode every window once for all episodes.
        features = map_encoded(
            features_of, model, weights.variables, eval_set.inputs, eval_set.windows
        )

        # The first windows are the first clips of the songs, which the supports are among.
        tables = eval_set.corpus.tables
        encoded = tables._replace(encoded=jnp.asarray(features[: len(tables.log_mel)]))

        def predict_head(params, windows: np.ndarray):
            return heads_many(params, features[windows])

        return _predict(
            eval_set,
            len(support),
            chunk,
            functools.partial(adapt_to, tables=encoded),
            predict_head,
        )

    return predict


def _predict(
    eval_set: EvalSet,
    episodes: int,
    chunk: int,
    adapt_to: Callable[[np.ndarray], tuple[Any, jax.Array]],
    predict: Callable[[Any, np.ndarray], jax.Array],
) -> tuple[np.ndarray, np.ndarray]:
    """Adapts and predicts in chunks of episodes.

    Args:
      eval_set: the evaluation set.
      episodes: E.
      chunk: episodes computed at once.
      adapt_to: episodes [chunk] -> (adapted weights, losses [chunk, K + 1]).
      predict: (adapted weights, windows [chunk, W]) -> curves [chunk, W, S, 2].

    Returns:
      Curves [M, L, 2] and losses [E, K + 1].
    """
    needed, local = episode_windows(eval_set.plan, eval_set.sequences, episodes)
    most = max(len(windows) for windows in needed)
    together = min(most, _WINDOWS)
    curves = np.empty((episodes, most, eval_set.corpus.segments, 2), np.float32)
    losses: list[Any] = []
    for first in range(0, episodes, chunk):
        # The last chunk is filled up with the first episodes, so that only one shape is compiled.
        rows = np.arange(first, first + chunk) % episodes
        adapted, loss = adapt_to(rows)
        losses.append(loss)
        longest = max(len(needed[row]) for row in rows)
        windows = np.stack(
            [np.resize(needed[row], -(-longest // together) * together) for row in rows]
        )
        for column in range(0, windows.shape[1], together):
            predicted = predict(adapted, windows[:, column : column + together])
            end = min(column + together, most)
            curves[rows, column:end] = np.asarray(predicted)[:, : end - column]
    window = local + most * eval_set.sequences.episode[:, None, None]
    spliced = splice(curves.reshape(-1, *curves.shape[2:]), window, eval_set.plan.position)
    return spliced, np.concatenate(jax.device_get(losses))[:episodes]
