"""Losses that run in NumPy's dialect of JAX and of PyTorch, for `benchmarks.libraries`."""

from __future__ import annotations

from typing import Any

RATE = 0.1
"""Rate of the inner SGD."""


def mlp_loss(xp: Any, params: Any, x: Any, y: Any) -> Any:
    """Returns the cross-entropy of one hidden layer; y is one-hot."""
    logits = xp.tanh(x @ params[0] + params[1]) @ params[2] + params[3]
    return _cross_entropy(xp, logits, y)


def transformer_loss(xp: Any, params: Any, x: Any, y: Any) -> Any:
    """Returns the cross-entropy of the next symbol, of causal blocks; x and y are one-hot."""
    embed, blocks = params[0], params[1:]
    hidden, mask = x @ embed, xp.tril(xp.ones((x.shape[1], x.shape[1])))
    for i in range(0, len(blocks), 3):
        attend, inner, outer = blocks[i : i + 3]
        scores = hidden @ attend @ hidden.swapaxes(-1, -2) / embed.shape[1] ** 0.5
        weights = xp.exp(scores) * mask
        hidden = hidden + weights / weights.sum(-1)[..., None] @ hidden
        hidden = hidden + xp.tanh(hidden @ inner) @ outer
    return _cross_entropy(xp, hidden @ embed.swapaxes(0, 1), y)


LOSSES = {"digits": mlp_loss, "transformer": transformer_loss}


def _cross_entropy(xp: Any, logits: Any, y: Any) -> Any:
    return (xp.log(xp.exp(logits).sum(-1)) - (logits * y).sum(-1)).mean()
