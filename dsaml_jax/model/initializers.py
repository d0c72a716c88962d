"""Weight initialization with the defaults of the released model's framework (PyTorch)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from dsaml_jax.model.config import DSAMLConfig

fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan in), 1/sqrt(fan in))."""


def linear(config: DSAMLConfig, features: int, name: str | None = None) -> nn.Dense:
    """Returns the layer y = x W + b in the dtypes of the config; `setup` names it by itself."""
    return nn.Dense(
        features,
        dtype=config.compute_dtype,
        param_dtype=jnp.dtype(config.param_dtype),
        kernel_init=fan_in_uniform,
        name=name,
    )
