"""The listeners' stage: a basis of curves in which every listener of the training songs is a point.

A step takes songs with ALL their raters, and moves the network by the gradient of the expected
negative log-likelihood of their ratings under the listeners' posteriors. Every few steps the
listeners are inferred again (`training.listeners`). So the network learns what listeners differ
in, which a loss on one curve for everybody averages out. At the end, the leading directions of the
listeners' covariance become those of the model's context, from which meta-learning starts.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dsaml_jax.config.listeners import ListenersConfig
from dsaml_jax.data.songs import Raters, draw_songs
from dsaml_jax.data.tables import Tables
from dsaml_jax.meta import MetaParams
from dsaml_jax.meta.finite import Finite
from dsaml_jax.model import DSAML, DSAMLConfig
from dsaml_jax.model.batch import Batch
from dsaml_jax.model.likelihood import Noise, log_likelihood_terms
from dsaml_jax.model.losses import agreement, score
from dsaml_jax.model.objective import encode
from dsaml_jax.model.weights import Weights
from dsaml_jax.training.accumulation import sum_over_tasks
from dsaml_jax.training.devices import replicated, task_layout
from dsaml_jax.training.listeners import (
    Head,
    Listeners,
    directions,
    expected_squares,
    initial_listeners,
    update_listeners,
    with_one,
)
from dsaml_jax.training.stage_log import StepMetrics
from dsaml_jax.training.update import compile_step, keep_if, outer_update

LOG = logging.getLogger(__name__)

_SONGS_STREAM, _NOISE_STREAM = range(2)


class ListenersState(NamedTuple):
    """State of the listeners' stage; the first four fields are those of `TrainState`."""

    step: jax.Array
    weights: Weights
    opt_state: optax.OptState
    skipped: jax.Array
    listeners: Listeners


def start_listeners(
    model: DSAMLConfig,
    config: ListenersConfig,
    weights: Weights,
    optimizer: optax.GradientTransformation,
    tables: Tables,
) -> ListenersState:
    """Returns step 0, whose curve for everybody is at the mean rating, and moves little."""
    params = weights.params
    rated = tables.valid[..., None]
    mean = (tables.curve * rated).sum((0, 1)) / rated.sum()
    output = _output_weights(params)
    size = model.predictor_dim**0.5
    params = _with_output(params, jnp.concatenate([output[:-1] / size, mean[None]]))
    meta_params = MetaParams(params, {})
    songs, segments = tables.log_mel.shape[:2]
    annotators = len(tables.counts)
    zero = jnp.zeros((), jnp.int32)
    return ListenersState(
        zero,
        Weights(meta_params, weights.batch_stats),
        optimizer.init(meta_params),
        jnp.copy(zero),
        initial_listeners(songs, segments, model.predictor_dim, annotators, config.prior_sd),
    )


def make_listeners_step(
    model: DSAMLConfig,
    config: ListenersConfig,
    optimizer: optax.GradientTransformation,
    raters: Raters,
    mesh: Mesh,
):
    """Compiles step(state, tables, key) -> (state, metrics), which moves the network.

    Songs, their noise, and dropout depend on `key`, the step, and the song's place in the batch,
    never on devices. Each device computes groups of consecutive songs.

    Args:
      model: sizes of the model.
      config: of the stage.
      optimizer: the outer optimizer.
      raters: of the training songs.
      mesh: the devices.
    """
    devices = mesh.devices.size
    count = config.songs
    group = min(-(-count // devices), config.songs_at_once or count)
    groups = max(-(-count // group), devices)
    layout = task_layout(groups, 1, mesh)
    songs_of_split = len(raters.ratings)

    def step(state: ListenersState, tables: Tables, key: jax.Array):
        songs = songs_of_listeners_step(key, state.step, songs_of_split, count)
        noise_key = jax.random.fold_in(key, _NOISE_STREAM)
        keys = jax.vmap(
            lambda place: jax.random.fold_in(jax.random.fold_in(noise_key, state.step), place)
        )(jnp.arange(count))
        ratings, rated = (jnp.asarray(each)[songs] for each in raters)
        total = jnp.maximum(rated.sum(), 1)
        meta_params, batch_stats = state.weights
        posterior = state.listeners.posterior

        def loss(params, place, counted):
            batch = _noisy(config, tables, batch_stats, ratings[place][:, 0], keys[place])
            basis, stats = _train_basis(model, params, batch, keys[place])
            own = rated[place] & counted[:, None]
            each, scores = _rating_losses(model, params, basis, tables, ratings[place], posterior)
            listed = (
                basis,
                jnp.where(own, each, 0).sum(-1),
                jnp.where(own, scores, 0).sum(-1),
            )
            return listed[1].sum() / total, (listed, stats)

        def one_group(i):
            place = i * group + jnp.arange(group)
            gradient, (listed, stats) = jax.grad(loss, has_aux=True)(
                meta_params.params, jnp.minimum(place, count - 1), place < count
            )
            return (gradient, stats), listed

        template = meta_params.params, batch_stats
        (gradient, stats), listed = sum_over_tasks(one_group, template, groups, layout)
        basis, losses, scores = jax.tree.map(
            lambda x: x.reshape(groups * group, *x.shape[2:])[:count], listed
        )
        stats = jax.tree.map(lambda sum_, x: (sum_ / groups).astype(x.dtype), stats, batch_stats)
        metrics = {"loss": losses.sum() / total, "score": scores.sum() / total}
        update = outer_update(
            optimizer,
            state.weights,
            state.opt_state,
            MetaParams(gradient, {}),
            stats,
            metrics["loss"],
        )
        metrics |= {
            "gradient_norm": update.gradient_norm,
            "skipped": state.skipped + ~update.is_finite,
        }
        listeners = state.listeners._replace(
            basis=state.listeners.basis.at[songs].set(basis),
            seen=state.listeners.seen.at[songs].set(True),
        )
        new_state = ListenersState(
            state.step + 1,
            update.weights,
            update.opt_state,
            metrics["skipped"],
            keep_if(update.is_finite, listeners, state.listeners),
        )
        no_inner_steps = jnp.ones((count, 0), bool)
        return new_state, StepMetrics(metrics, Finite(no_inner_steps, jnp.isfinite(losses), {}))

    return compile_step(step, mesh)


def with_songs_at_most(config: ListenersConfig, songs: int) -> ListenersConfig:
    """Returns the config of a stage on `songs` songs: a step takes all of them if it wants more."""
    if config.songs <= songs:
        return config
    LOG.info("listeners.songs is %d; every step takes all %d songs", config.songs, songs)
    return dataclasses.replace(config, songs=songs)


def songs_of_listeners_step(
    key: jax.Array, step: jax.Array | int, songs: int, count: int
) -> jax.Array:
    """Returns the songs [count] of the step after `step` others."""
    return draw_songs(jax.random.fold_in(key, _SONGS_STREAM), step, songs, count)


def make_inference(raters: Raters, mesh: Mesh):
    """Compiles infer(state, tables) -> state, which infers the listeners and updates their prior.

    Every device infers all of them.
    """
    sharding = replicated(mesh)

    def infer(state: ListenersState, tables: Tables) -> ListenersState:
        params = state.weights.params
        head = Head(_output_weights(params), Noise(**params["likelihood"]))
        listeners, head = update_listeners(state.listeners, head, tables, raters)
        changed = _with_output(params, head.weights) | {"likelihood": head.noise._asdict()}
        weights = state.weights._replace(meta_params=MetaParams(changed, {}))
        return state._replace(weights=weights, listeners=listeners)

    return jax.jit(infer, donate_argnums=0, in_shardings=sharding, out_shardings=sharding)


def infers_after(config: ListenersConfig, step: int) -> bool:
    """Returns whether listeners are inferred after `step` steps."""
    return step >= config.infer_from and (step - config.infer_from) % config.infer_every == 0


def personal_weights(model: DSAMLConfig, state: ListenersState) -> Weights:
    """Returns the weights of `model`, with the listeners' leading directions as its context's."""
    params = state.weights.params
    if model.support_loss != "likelihood":
        params = {name: value for name, value in params.items() if name != "likelihood"}
    if not model.context_dim:
        return Weights(MetaParams(params, {}), state.weights.batch_stats)
    moved = directions(state.listeners, model.context_dim)
    context = {
        "vector": jnp.zeros(model.context_dim),
        "kernel": moved[:, :-1],
        "bias": moved[:, -1],
    }
    predictor = params["predictor"] | {
        "context": jax.tree.map(
            lambda new, old: new.astype(old.dtype), context, params["predictor"]["context"]
        )
    }
    return Weights(MetaParams(params | {"predictor": predictor}, {}), state.weights.batch_stats)


def _noisy(
    config: ListenersConfig, tables: Tables, batch_stats: Any, ratings: jax.Array, keys: jax.Array
) -> Batch:
    """Gathers one clip for each rating, with noise on its inputs."""
    batch = tables.batch(ratings, batch_stats)

    def add(x, sd, stream):
        if not sd:
            return x
        # One offset for a clip: [G], or [1, G] where each segment has an embedding; [1, 1, F].
        shape = (*[1] * (x.ndim - 2), x.shape[-1])
        drawn = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, stream), shape))
        return x + sd * drawn(keys).astype(x.dtype)

    return batch._replace(
        log_mel=add(batch.log_mel, config.log_mel_noise, 0),
        embedding=add(batch.embedding, config.embedding_noise, 1),
    )


def _train_basis(
    model: DSAMLConfig, params: Any, batch: Batch, keys: jax.Array
) -> tuple[jax.Array, Any]:
    """Returns the basis [n, S, P] of n clips and the updated running statistics."""

    def of(batch, key):
        encoded = encode(model, params, batch, key, train=True)
        basis, _ = DSAML(model).apply(
            {"params": params},
            encoded.features,
            True,
            rngs={"dropout": key},
            mutable=[],
            method="basis",
        )
        return basis, encoded.batch_stats

    if not model.dropout or model.normalization != "clip":
        return of(batch, keys[0])
    # Dropout is drawn by clip, so that it does not depend on how clips are grouped.
    one_each = jax.tree.map(lambda x: x[:, None], batch._replace(batch_stats={}))
    basis, _ = jax.vmap(of)(one_each, jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys))
    return basis[:, 0], batch.batch_stats


def _rating_losses(
    model: DSAMLConfig,
    params: Any,
    basis: jax.Array,
    tables: Tables,
    ratings: jax.Array,
    posterior: Any,
) -> tuple[jax.Array, jax.Array]:
    """Returns expected losses of ratings [n, r] of n songs, and scores of everybody's curve."""
    noise = Noise(**params["likelihood"])
    # Precisions are updated in closed form.
    noise = jax.lax.stop_gradient(noise)
    x = with_one(basis)
    curve = x @ _output_weights(params)

    def one_rating(x, curve, decided, rating):
        annotator = tables.annotator_of[rating]
        target, valid = tables.curve[rating], tables.valid[rating]
        squares = expected_squares(
            x,
            target - curve,
            valid,
            posterior.mean[annotator],
            posterior.covariance[annotator],
            noise,
        )
        agreed = jax.tree.map(lambda v: v[None], agreement(decided, target, valid))
        return log_likelihood_terms(noise, *squares, valid).sum(), score(agreed, jnp.ones(1))

    decided = jax.lax.stop_gradient(DSAML(model).apply({"params": params}, curve, method="decide"))
    of_song = jax.vmap(one_rating, in_axes=(None, None, None, 0))
    return jax.vmap(of_song)(x, curve, decided, ratings)


def _output_weights(params: Any) -> jax.Array:
    output = params["predictor"]["output"]
    return jnp.concatenate([output["kernel"], output["bias"][None]])


def _with_output(params: Any, weights: jax.Array) -> dict[str, Any]:
    output = {"kernel": weights[:-1], "bias": weights[-1]}
    return params | {"predictor": params["predictor"] | {"output": output}}
