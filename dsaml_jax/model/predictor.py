"""Sequence predictor: BiLSTM -> Linear -> dropout -> Linear -> (arousal, valence)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from dsaml_jax.model import dropout
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import fan_in_uniform, linear
from dsaml_jax.model.lstm import lstm

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Predictor(nn.Module):
    """The network from features to curves; its output is not bounded, as released."""

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x_NSD: Float[Array, "clips segments dim"], deterministic: bool
    ) -> Float[Array, "clips segments 2"]:
        """Returns (arousal, valence) of each segment."""
        config = self.config
        # One recurrence computes both directions; the second one runs backward in time.
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
    """The weights and the input projection of one direction of `lstm`.

    Its two biases only matter through their sum but are separate weights, as released: an inner SGD
    step thus moves the sum by twice its gradient.
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, x_NSD: Float[Array, "clips segments dim"]
    ) -> tuple[Float[Array, "clips segments gates"], Float[Array, "hidden gates"]]:
        """Returns the input's contribution to the gates and the recurrent kernel."""
        config, dim = self.config, self.config.lstm_dim
        param_dtype = jnp.dtype(config.param_dtype)
        kernel = self.param("recurrent", fan_in_uniform, (dim, 4 * dim), param_dtype)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (4 * dim,), param_dtype)
        gates = (
            linear(config, 4 * dim, "input")(x_NSD) + bias.astype(config.compute_dtype)[None, None]
        )
        return gates, kernel.astype(config.compute_dtype)
