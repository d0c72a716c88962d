"""Sequence predictor: BiLSTM -> Linear -> dropout -> Linear -> (arousal, valence)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsaml_jax.model import dropout
from dsaml_jax.model.config import DSAMLConfig
from dsaml_jax.model.initializers import fan_in_uniform, linear
from dsaml_jax.model.lstm import lstm

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Predictor(nn.Module):
    """The network from features to curves; its output is not bounded, as released.

    The layer "hidden" is linear, so what "output" reads is a basis of curves, and moving "output"
    moves the curve within it.
    """

    config: DSAMLConfig

    def setup(self):
        config = self.config
        self.forward = LSTM(config)
        self.backward = LSTM(config)
        self.hidden = linear(config, config.predictor_dim)
        self.output = linear(config, 2)
        if config.context_dim:
            self.context = Context(config)

    def __call__(
        self, x_NSD: Float[Array, "clips segments dim"], deterministic: bool
    ) -> Float[Array, "clips segments 2"]:
        """Returns (arousal, valence) of each segment."""
        return self.read(self.basis(x_NSD, deterministic))

    def read(
        self, basis_NSP: Float[Array, "clips segments hidden"]
    ) -> Float[Array, "clips segments 2"]:
        """Returns the curves that the output layer, moved by the context, reads from a basis."""
        curve = self.output(basis_NSP)
        return curve + self.context(basis_NSP) if self.config.context_dim else curve

    def basis(
        self, x_NSD: Float[Array, "clips segments dim"], deterministic: bool
    ) -> Float[Array, "clips segments hidden"]:
        """Returns what the output layer reads, with P = `predictor_dim` values a segment."""
        config = self.config
        # One recurrence computes both directions; the second one runs backward in time.
        (forward, kernel_1), (backward, kernel_2) = self.forward(x_NSD), self.backward(x_NSD)
        gates_S2NG = jnp.stack([forward, backward[:, ::-1]]).transpose(2, 0, 1, 3)
        hidden, _ = lstm(gates_S2NG, jnp.stack([kernel_1, kernel_2]), config.lstm_unroll)
        hidden = jnp.concatenate([hidden[:, 0], hidden[::-1, 1]], axis=-1).swapaxes(0, 1)
        hidden = self.hidden(hidden)
        if config.basis_scale != 1:
            hidden *= config.basis_scale
        if config.dropout and not deterministic:
            key = self.make_rng("dropout")
            hidden *= dropout.factors(key, config.dropout, [hidden.shape], hidden.dtype)[0]
        return hidden


class Context(nn.Module):
    """A listener's Z numbers z, and the directions of the output layer along which they move it.

    The curve changes by Σ_k z_k (h U_k + c_k), h what the output layer reads. z is 0 for everybody
    and is adapted (CAVIA, Zintgraf et al. 2019). With z ~ N(0, I) this is a Gaussian prior of the
    output layer's weights whose covariance of rank Z is learned (ALPaCA, Harrison et al. 2018).
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, basis_NSP: Float[Array, "clips segments hidden"]
    ) -> Float[Array, "clips segments 2"]:
        """Returns the change of the curve."""
        config = self.config
        numbers, dtype = config.context_dim, jnp.dtype(config.param_dtype)
        shape = numbers, basis_NSP.shape[-1], 2
        vector = self.param("vector", nn.initializers.zeros, (numbers,), dtype)
        kernel = self.param("kernel", _direction, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, (numbers, 2), dtype)
        moved = jnp.tensordot(vector, kernel, 1).astype(config.compute_dtype)
        return basis_NSP @ moved + (vector @ bias).astype(config.compute_dtype)


def _direction(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Draws directions [Z, P, 2] with entries of variance 1 / (Z P)."""
    return jax.random.normal(key, shape, dtype) / (shape[0] * shape[1]) ** 0.5


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
