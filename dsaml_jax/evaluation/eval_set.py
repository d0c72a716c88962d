"""A trial: what is tested, on which episodes, and how a model predicts it, adapted or not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.tasks import Episodes, check_support, fixed_episodes, same_song_episodes
from dsaml_jax.evaluation.sequences import Sequences, episode_sequences, song_sequences
from dsaml_jax.evaluation.windows import (
    Clips,
    WindowInputs,
    WindowPlan,
    episode_windows,
    splice_windows,
    window_inputs,
    window_plan,
)
from dsaml_jax.meta import MetaParams, adapt
from dsaml_jax.model import DSAML, DSAMLConfig
from dsaml_jax.model.objective import Batch, dsaml_problem, encoder_is_frozen
from dsaml_jax.model.weights import Weights

_WINDOWS = 8
"""Windows of a task that are predicted at once, at most."""

_FEATURE_BYTES = 2**30
"""The encoder's features of a trial are kept for all episodes where they fit in so much memory."""


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Attributes:
    corpus: of the split.
    episodes: who is adapted to, on what; None with consensus labels.
    sequences: what is tested.
    sound, reading: what is heard, and in which windows.
    """

    corpus: Corpus
    episodes: Episodes | None
    sequences: Sequences
    inputs: WindowInputs
    plan: WindowPlan

    def clips(self, windows: np.ndarray) -> Clips:
        """What is heard in windows [...], gathered where the sound is."""
        at, row = self.plan.at[windows], self.plan.row[windows]
        return self.inputs.window(at, row, self.corpus.segments)


def make_eval_set(
    experiment: Experiment, corpus: Corpus, source: str, protocol: str = "cross_song"
) -> EvalSet:
    """The trial that a config asks for on one split.

    With consensus labels every song is tested once, whatever the protocol. With personal ones:
      "cross_song": adapted on the first clip of each support song, tested on other songs.
      "same_song": adapted on the first clip of a long song, tested on the rest of that song.

    Raises:
      UserError: the split has too few songs or annotators for it; `source` names the split.
    """
    tasks, evaluation = experiment.tasks, experiment.evaluation
    if corpus.is_consensus:
        episodes, sequences = None, song_sequences(corpus)
    elif protocol == "same_song":
        episodes = same_song_episodes(corpus, seed=experiment.seed)
        sequences = episode_sequences(corpus, episodes, first=corpus.segments)
    else:
        check_support(corpus, support=tasks.support, source=source)
        episodes = fixed_episodes(
            corpus,
            support=tasks.support,
            episodes=evaluation.episodes,
            query=evaluation.query,
            seed=experiment.seed,
        )
        sequences = episode_sequences(corpus, episodes)
    plan = window_plan(corpus, sequences, evaluation.hops)
    return EvalSet(corpus, episodes, sequences, window_inputs(corpus), plan)


def predict_windows(
    model: DSAMLConfig, weights: Weights, eval_set: EvalSet, batch: int = 32
) -> np.ndarray:
    """[U, S, 2]: what one set of weights predicts of every window of the trial."""
    return _every_window(_curves, model, weights, eval_set, batch)


def _every_window(run, model: DSAMLConfig, weights: Weights, eval_set: EvalSet, batch: int = 32):
    count = len(eval_set.plan.at)
    # The last batch is filled up with the first windows, so that one shape is compiled.
    index = np.arange(-(-count // batch) * batch) % count
    parts = [
        jax.device_get(run(model, weights, eval_set.clips(windows)))
        for windows in index.reshape(-1, batch)
    ]
    return np.concatenate(parts)[:count]


@functools.partial(jax.jit, static_argnums=0)
def _curves(model: DSAMLConfig, weights: Weights, clips: Clips):
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    return DSAML(model).apply(variables, *clips).curve


@functools.partial(jax.jit, static_argnums=0)
def _features(model: DSAMLConfig, weights: Weights, clips: Clips):
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    return DSAML(model).apply(variables, *clips, method="encode")[0]


Predictor = Callable[[Weights, EvalSet, np.ndarray], tuple[np.ndarray, np.ndarray]]


def make_predictor(model: DSAMLConfig, inner: InnerConfig, chunk: int) -> Predictor:
    """predict(weights, trial, support [E, k]) -> (curves [M, L, 2], losses [E, K + 1]).

    Adapts the weights to each episode's `support` ratings with `inner` (K may be 0), at their
    learned rates, if any, and predicts what it tests. Deterministic: dropout is off. `losses` is
    the support loss before each step and after the last. `chunk` episodes are computed at a time,
    and up to `_WINDOWS` windows of each.
    """
    problem, loop = dsaml_problem(model, train=False), inner.loop()

    def adapt_one(weights: Weights, batch: Batch):
        key = jax.random.key(0)  # nothing is random here
        batch = batch._replace(batch_stats=weights.batch_stats)
        meta_params = weights.meta_params
        adapted = adapt(
            problem.loss,
            loop,
            meta_params,
            batch,
            key,
            precompute=problem.precompute,
            exact_steps=0,
        )
        last = problem.loss(adapted.params, batch, key)
        return adapted.params, jnp.append(adapted.losses, last)

    def curves(params, batch_stats, clips: Clips):
        return _curves(model, Weights(MetaParams(params, {}), batch_stats), clips)

    def heads(params, features):
        return DSAML(model).apply({"params": params}, features, method="predict")

    adapt_many = jax.jit(jax.vmap(adapt_one, in_axes=(None, 0)))
    curves_many = jax.jit(jax.vmap(curves, in_axes=(0, None, 0)))
    heads_many = jax.jit(jax.vmap(heads))

    def predict(weights: Weights, eval_set: EvalSet, support: np.ndarray):
        plan, segments = eval_set.plan, eval_set.corpus.segments

        def adapt_to(rows):
            return adapt_many(weights, eval_set.corpus.tables.batch(support[rows], None))

        def encode_and_read(params, windows):
            return curves_many(params, weights.batch_stats, eval_set.clips(windows))

        size = 4 * len(plan.at) * segments * model.dim
        if not encoder_is_frozen(loop, weights.params) or size > _FEATURE_BYTES:
            return _predict(eval_set, len(support), chunk, adapt_to, encode_and_read)
        # The adapted models differ in their heads only: every window is encoded once for all.
        features = _every_window(_features, model, weights, eval_set)

        def read(params, windows):
            return heads_many(params, features[windows])

        return _predict(eval_set, len(support), chunk, adapt_to, read)

    return predict


def _predict(eval_set: EvalSet, episodes: int, chunk: int, adapt_to, read):
    """Adapts (`adapt_to` [chunk] -> weights, losses) and reads windows [chunk, W] of each."""
    plan = eval_set.plan
    needed, local = episode_windows(plan, eval_set.sequences, episodes)
    most = max(len(each) for each in needed)
    together = min(most, _WINDOWS)
    found = np.empty((episodes, most, eval_set.corpus.segments, 2), np.float32)
    losses = []
    for first in range(0, episodes, chunk):
        # The last chunk is filled up with episodes that were done, so that one shape is compiled.
        rows = np.arange(first, first + chunk) % episodes
        tuned, loss = adapt_to(rows)
        losses.append(loss)
        here = max(len(needed[row]) for row in rows)
        windows = np.stack(
            [np.resize(needed[row], -(-here // together) * together) for row in rows]
        )
        for column in range(0, windows.shape[1], together):
            curve = read(tuned, windows[:, column : column + together])
            end = min(column + together, most)
            found[rows, column:end] = np.asarray(curve)[:, : end - column]
    flat = plan._replace(window=local + most * eval_set.sequences.episode[:, None, None])
    curves = splice_windows(found.reshape(-1, *found.shape[2:]), flat)
    return curves, np.concatenate(jax.device_get(losses))[:episodes]
