"""Sequence predictor: BiLSTM -> Linear -> dropout -> Linear -> (arousal, valence) a segment."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model import dropout
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import fan_in_uniform, linear
from dsaml_jax.model.lstm import lstm


class Predictor(nn.Module):
    """[N, S, D] -> [N, S, 2], not squashed, as released."""

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x_NSD: jax.Array, deterministic: bool) -> jax.Array:
        config = self.config
        # Both directions are one recurrence: the second one's time runs backwards.
        (forward, kernel_1), (backward, kernel_2) = (
            LSTM(config, name=name)(x_NSD) for name in ("forward", "backward")
        )
        gates_S2NG = jnp.stack([forward, backward[:, ::-1]]).transpose(2, 0, 1, 3)
        hidden, _ = lstm(gates_S2NG, jnp.stack([kernel_1, kernel_2]), config.lstm_unroll)
        hidden = jnp.concatenate([hidden[:, 0], hidden[::-1, 1]], axis=-1).swapaxes(0, 1)
        hidden = linear(config, config.predictor_dim, "hidden")(hidden)
        if config.dropout and not deterministic:
            key = self.make_rng("dropout")
            hidden *= dropout.factors(key, config.dropout, [hidden.shape], hidden.dtype)[0]
        return linear(config, 2, "output")(hidden)


class LSTM(nn.Module):
    """One direction's weights of `lstm`, and its input projection: [N, S, D] -> gates, kernel.

    The two biases add up, but are two weights, as released: an inner SGD step moves their sum
    twice.
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(self, x_NSD: jax.Array) -> tuple[jax.Array, jax.Array]:
        config, dim = self.config, self.config.lstm_dim
        param_dtype = jnp.dtype(config.param_dtype)
        kernel = self.param("recurrent", fan_in_uniform, (dim, 4 * dim), param_dtype)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (4 * dim,), param_dtype)
        gates = linear(config, 4 * dim, "input")(x_NSD) + bias.astype(config.compute_dtype)
        return gates, kernel.astype(config.compute_dtype)
