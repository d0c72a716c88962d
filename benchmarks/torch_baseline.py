"""The meta-step in plain PyTorch: eager, a Python loop over tasks.

Our own implementation of the model, from the paper and the sizes of the release, as a PyTorch user
would write it: modules of `torch.nn`, the two attention passes one after the other, distances from
an embedding table, adapted weights through `torch.func.functional_call`. Tested against the
release's golden numbers (`tests/benchmarks/test_torch_baseline.py`). Weights are exchanged under
our names and axes. PyTorch is an optional dependency: `requirements-benchmarks.txt`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.problem import Problem

LOCAL_WIDTH, GLOBAL_WIDTH, POSITIONS = 5, 30, 512


class Block(nn.Sequential):
    """Convolution, batch normalization, ReLU, 2 x 2 max pooling."""

    def __init__(self, inputs, outputs, kernel, padding):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding)
        self.norm = nn.BatchNorm2d(outputs, track_running_stats=False)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2, padding=1)


class Attention(nn.Module):
    """Multi-head attention with a relative-key position term."""

    def __init__(self, problem: Problem):
        super().__init__()
        dim, self.heads = problem.dim, problem.heads
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.distance = nn.Embedding(2 * POSITIONS - 1, dim // self.heads)
        self.drop = nn.Dropout(problem.dropout)

    def forward(self, x, bias):
        def heads(projected):
            return projected.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        place = torch.arange(x.shape[1], device=x.device)
        embedded = self.distance(place[:, None] - place[None] + POSITIONS - 1)
        scores = query @ key.transpose(-1, -2)
        scores = scores + torch.einsum("nhik,ijk->nhij", query, embedded)
        maps = (scores / query.shape[-1] ** 0.5 + bias).softmax(-1)
        mixed = (self.drop(maps) @ value).transpose(1, 2).reshape(x.shape)
        return self.output(mixed), maps


class EncoderLayer(nn.Module):
    """A transformer encoder layer, normalized after each residual sum."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.attention = Attention(problem)
        self.attention_norm = nn.LayerNorm(problem.dim, eps=1e-12)
        self.expand = nn.Linear(problem.dim, problem.feed_forward)
        self.contract = nn.Linear(problem.feed_forward, problem.dim)
        self.output_norm = nn.LayerNorm(problem.dim, eps=1e-12)
        self.drop = nn.Dropout(problem.dropout)

    def forward(self, x, bias):
        attended, maps = self.attention(x, bias)
        x = self.attention_norm(x + self.drop(attended))
        hidden = self.contract(F.gelu(self.expand(x)))
        return self.output_norm(x + self.drop(hidden)), maps


class TorchDSAML(nn.Module):
    """Model (log-mel [N, S, T, F], embedding [N, D]) -> curve [N, S, 2], last attention maps."""

    def __init__(self, problem: Problem):
        super().__init__()
        rows, columns = problem.frames + 2, problem.bands + 2
        for _ in range(2):
            rows, columns = rows // 2 + 1, columns // 2 + 1
        dim = problem.dim
        self.block_1 = Block(1, 8, (3, 1), (2, 1))
        self.block_2 = Block(8, 16, 3, 1)
        self.conv_3 = nn.Conv2d(16, 1, 1)
        self.project_local = nn.Linear(rows * columns, dim)
        self.mix = nn.Linear(dim, dim)
        self.layers = nn.ModuleList(EncoderLayer(problem) for _ in range(problem.layers))
        self.lstm = nn.LSTM(dim, problem.lstm_dim, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(2 * problem.lstm_dim, problem.predictor_dim)
        self.output = nn.Linear(problem.predictor_dim, 2)
        self.drop = nn.Dropout(problem.dropout)

    def forward(self, log_mel, embedding):
        clips, segments = log_mel.shape[:2]
        x = self.conv_3(self.block_2(self.block_1(log_mel.flatten(0, 1)[:, None])))
        x = self.project_local(x.reshape(clips, segments, -1))
        fused = self.mix(torch.sigmoid(x + embedding[:, None]))
        place = torch.arange(segments, device=x.device)
        distance = (place[:, None] - place[None]).abs()
        scales, maps = [], []
        for width in (LOCAL_WIDTH, GLOBAL_WIDTH):
            bias = torch.where(distance <= width, 0.0, -10_000.0).to(x.dtype)
            scale = fused
            for layer in self.layers:
                scale, attention = layer(scale, bias)
            scales.append(scale)
            maps.append(attention)
        hidden, _ = self.lstm(torch.sigmoid(scales[0] + scales[1]))
        return self.output(self.drop(self.hidden(hidden))), maps


def objective(curve, maps, target):
    """Returns 1 - mean of {CCC, PCC, 1 - RMSE} + attention loss."""
    mean_p, mean_t = curve.mean(1, keepdim=True), target.mean(1, keepdim=True)
    var_p = ((curve - mean_p) ** 2).mean(1)
    var_t = ((target - mean_t) ** 2).mean(1)
    covariance = ((curve - mean_p) * (target - mean_t)).mean(1)
    ccc = 2 * covariance / (var_p + var_t + ((mean_p - mean_t) ** 2)[:, 0])
    pcc = covariance / ((var_p * var_t).sqrt() + 1e-8 / curve.shape[1])
    rmse = ((curve - target) ** 2).mean(1).sqrt()
    score = (ccc.mean() + pcc.mean() + 1 - rmse.mean()) / 3
    attention = sum(
        ((average.mean((0, 1)).diagonal() - goal) ** 2).mean()
        for average, goal in zip(maps, (0.9, 0.1), strict=True)
    )
    return 1 - score + attention


def meta_step(
    model: TorchDSAML,
    optimizer: torch.optim.Optimizer,
    tasks: Mapping[str, torch.Tensor],
    problem: Problem,
) -> tuple[float, float]:
    """Takes a meta-step; returns the mean query loss and the norm of the meta-gradient.

    Args:
      model: The model, whose weights it changes.
      optimizer: The outer optimizer.
      tasks: `log_mel`, `embedding` and `curve` [B, songs, ...], the support first.
      problem: Sizes of the meta-step.
    """
    optimizer.zero_grad()
    second_order = problem.estimator == "second_order"
    total = 0.0
    for task in range(problem.tasks):
        own = [tasks[name][task] for name in ("log_mel", "embedding", "curve")]
        support = [x[: problem.shots] for x in own]
        query = [x[problem.shots :] for x in own]
        weights = dict(model.named_parameters())
        for _ in range(problem.inner_steps):
            loss = objective(*functional_call(model, weights, tuple(support[:2])), support[2])
            gradients = torch.autograd.grad(
                loss, tuple(weights.values()), create_graph=second_order
            )
            weights = {
                name: value - problem.inner_rate * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=True)
            }
        loss = objective(*functional_call(model, weights, tuple(query[:2])), query[2])
        (loss / problem.tasks).backward()
        total += loss.item() / problem.tasks
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    optimizer.step()
    return total, norm


_MODULES = {
    "adapter.conv_1": "block_1.conv",
    "adapter.norm_1": "block_1.norm",
    "adapter.conv_2": "block_2.conv",
    "adapter.norm_2": "block_2.norm",
    "adapter.conv_3": "conv_3",
    "fusion.project_local": "project_local",
    "fusion.mix": "mix",
    "predictor.hidden": "hidden",
    "predictor.output": "output",
    "attention.distance": "attention.distance.weight",
    "transformer.layer_": "layers.",
}
_LSTM = {
    "input.kernel": "weight_ih_l0",
    "input.bias": "bias_ih_l0",
    "recurrent_bias": "bias_hh_l0",
    "recurrent": "weight_hh_l0",
}


def torch_name(ours: str) -> str:
    """Returns PyTorch's name of a weight: `adapter/conv_1/kernel` -> `block_1.conv.weight`."""
    name = ours.replace("/", ".")
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        start = f"predictor.{direction}."
        if name.startswith(start):
            return f"lstm.{_LSTM[name.removeprefix(start)]}{suffix}"
    for old, new in _MODULES.items():
        name = name.replace(old, new)
    return name.replace(".kernel", ".weight").replace(".scale", ".weight")


def swap_axes(ours: str, value: np.ndarray) -> np.ndarray:
    """Returns a weight [..., in, out] with PyTorch's axes [out, in, ...]."""
    if ours.endswith(("kernel", "recurrent")):
        return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return value


def swap_axes_back(ours: str, value: np.ndarray) -> np.ndarray:
    """Returns a weight of PyTorch with our axes; the inverse of `swap_axes`."""
    if ours.endswith(("kernel", "recurrent")):
        return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return value


def build(problem: Problem, weights: Mapping[str, np.ndarray], device: str = "cpu") -> TorchDSAML:
    """Returns the model with given weights {our path: value}."""
    model = TorchDSAML(problem)
    state = {
        torch_name(path): torch.from_numpy(np.array(swap_axes(path, value)))
        for path, value in weights.items()
    }
    model.load_state_dict(state)
    return model.to(device, getattr(torch, problem.dtype))
