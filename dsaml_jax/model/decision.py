"""The decision layer: from the expected curve of a listener to the curve that is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig

if TYPE_CHECKING:
    from jaxtyping import Array, Float

REFERENCE_SD = 0.1
"""Standard deviation of a curve at which the gain is exp(k)."""

_LOG_GAIN, _EXPONENT = 0.5, 0.45
"""Initial k and a: curves that move little are widened most, as their expected rating is."""


class Decision(nn.Module):
    """Widens the movement of an expected curve, by the same rule for everybody.

    The curve with the best expected error moves less than any one rating, and CCC penalizes that.
    With m the mean of the curve over the clip and s the deviation of its movement x - m,

        y = m + exp(k) (s / 0.1)^(a - 1) (x - m),

    so that y deviates by 0.1 exp(k) (s / 0.1)^a. k and a are learned, one of each for arousal and
    valence; k = 0 and a = 1 change nothing. Adapting infers the expected curve, and this layer
    decides what to predict, so it is not part of the support loss.
    """

    config: DSAMLConfig

    @nn.compact
    def __call__(
        self, curve_NSd: Float[Array, "clips segments 2"]
    ) -> Float[Array, "clips segments 2"]:
        """Returns the widened curves; flat ones stay as they are."""
        dtype = jnp.dtype(self.config.param_dtype)
        log_gain = self.param("log_gain", nn.initializers.constant(_LOG_GAIN), (2,), dtype)
        exponent = self.param("exponent", nn.initializers.constant(_EXPONENT), (2,), dtype)
        mean = curve_NSd.mean(1, keepdims=True)
        movement = curve_NSd - mean
        # 1e-6 keeps the gain of a flat curve, and its derivative, finite.
        deviation = jnp.sqrt((movement**2).mean(1, keepdims=True) + 1e-6)
        gain = jnp.exp(log_gain) * (deviation / REFERENCE_SD) ** (exponent - 1)
        return mean + gain.astype(curve_NSd.dtype) * movement
