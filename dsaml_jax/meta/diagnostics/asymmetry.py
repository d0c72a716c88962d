"""Asymmetry of the support loss's Hessian, which custom derivatives can cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dsaml_jax.meta.directions import hessian_product
from dsaml_jax.meta.inner import InnerLoop, MetaParams
from dsaml_jax.meta.problem import Problem
from dsaml_jax.meta.steps import inner_parts
from dsaml_jax.meta.trees import merge, split_floating

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PRNGKeyArray


def asymmetry(
    problem: Problem,
    inner: InnerLoop,
    meta_params: MetaParams,
    support: object,
    key: PRNGKeyArray,
    *,
    pairs: int = 4,
) -> Float[Array, ""]:
    """Returns the largest |u·Hv - v·Hu| / (|u| |Hv| + |v| |Hu|) over random pairs u, v.

    H is the derivative of the support loss's gradient in all weights, adapted and frozen, before
    the first inner step. Rounding errors give about the precision of the weights' dtype. Anything
    larger says that the gradient is not that of the loss, because of a custom derivative; then the
    mixed engine, Newton's direction and implicit gradients are wrong (see `meta.symmetry`).

    Args:
      problem: losses.
      inner: inner loop of K >= 1 steps.
      meta_params: meta-parameters.
      support: support of one task.
      key: random key of the loss, the directions u and v, and `precompute`.
      pairs: number of pairs.
    """
    parts = inner_parts(problem, inner, meta_params, support, key)
    first = jax.tree.map(lambda x: x[0], parts.inputs)
    _, *others = parts.rest(parts.start, first)
    smooth, other = split_floating((parts.start.adapted, parts.frozen))

    def loss(smooth):
        adapted, frozen = merge(smooth, other)
        return parts.loss(adapted, (frozen, *others), key)[0]

    product = hessian_product(loss, smooth)
    flat, unravel = ravel_pytree(smooth)

    def one(key):
        u, v = jax.random.normal(key, (2, *flat.shape), flat.dtype)
        images = [ravel_pytree(product(unravel(x)))[0] for x in (v, u)]
        wide = jnp.promote_types(flat.dtype, jnp.float32)
        u, v, image_v, image_u = (x.astype(wide) for x in (u, v, *images))
        length = jnp.linalg.norm
        scale = length(u) * length(image_v) + length(v) * length(image_u)
        return jnp.abs(u @ image_v - v @ image_u) / jnp.maximum(scale, jnp.finfo(wide).tiny)

    return jax.lax.map(one, jax.random.split(key, pairs)).max()
