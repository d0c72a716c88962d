"""Sequence predictor: BiLSTM -> Linear -> dropout -> Linear -> (arousal, valence) a segment."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import fan_in_uniform, linear


class Predictor(nn.Module):
    """[N, S, D] -> [N, S, 2], not squashed, as released."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x_NSD: jax.Array, deterministic: bool) -> jax.Array:
        config = self.config
        hidden = jnp.concatenate(
            [
                LSTM(config, reverse=False, name="forward")(x_NSD),
                LSTM(config, reverse=True, name="backward")(x_NSD),
            ],
            axis=-1,
        )
        hidden = linear(config, config.predictor_dim, "hidden")(hidden)
        hidden = nn.Dropout(config.dropout)(hidden, deterministic=deterministic)
        return linear(config, 2, "output")(hidden)


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), gates in the order i, f, g, o.

    c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c'); the gates are x W_x + b_x + h W_h + b_h. The
    input projection is one matmul over all time steps; only h W_h is left in the loop. The two
    biases add up, but are two weights, as released: an inner SGD step moves their sum twice.
    """

    config: DSAMLConfig
    reverse: bool

    @nn.compact
    def __call__(self, x_NSD: jax.Array) -> jax.Array:
        config, dim = self.config, self.config.lstm_dim
        param_dtype = jnp.dtype(config.param_dtype)
        kernel = self.param("recurrent", fan_in_uniform, (dim, 4 * dim), param_dtype)
        kernel = kernel.astype(config.compute_dtype)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (4 * dim,), param_dtype)
        gates_NSG = linear(config, 4 * dim, "input")(x_NSD) + bias.astype(config.compute_dtype)

        def step(carry, gates_NG):
            hidden, cell = carry
            i, f, g, o = jnp.split(gates_NG + hidden @ kernel, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        start = jnp.zeros((x_NSD.shape[0], dim), config.compute_dtype)
        _, hidden_SNH = jax.lax.scan(
            step,
            (start, start),
            gates_NSG.swapaxes(0, 1),
            reverse=self.reverse,
            unroll=config.lstm_unroll,
        )
        return hidden_SNH.swapaxes(0, 1)
