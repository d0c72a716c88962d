"""Meta-gradients by plain PyTorch, higher and torchopt, for `benchmarks.libraries`.

Needs PyTorch and NumPy, not JAX; higher and torchopt if they are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import process
from benchmarks.library_losses import LOSSES, RATE

Loss = Callable[[Sequence[torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor]
Gradient = Callable[[], Sequence[torch.Tensor]]


class Network(torch.nn.Module):
    """Weights with a loss as their output, as higher and torchopt want it."""

    def __init__(self, loss: Loss, params: Sequence[torch.Tensor]):
        super().__init__()
        self.loss = loss
        self.names = [f"p{i}" for i in range(len(params))]
        for name, value in zip(self.names, params, strict=True):
            setattr(self, name, torch.nn.Parameter(value.detach().clone()))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Returns the loss."""
        return self.loss([getattr(self, name) for name in self.names], x, y)


def plain(loss: Loss, params, support, query, steps: int) -> Sequence[torch.Tensor]:
    """Differentiates a loop over weights that are written by hand."""
    start = [p.detach().clone().requires_grad_() for p in params]
    now = start
    for _ in range(steps):
        slopes = torch.autograd.grad(loss(now, *support), now, create_graph=True)
        now = [p - RATE * g for p, g in zip(now, slopes, strict=True)]
    return torch.autograd.grad(loss(now, *query), start)


def by_higher(loss: Loss, params, support, query, steps: int) -> Sequence[torch.Tensor]:
    """Differentiates higher's functional copy of a module (Grefenstette et al. 2019)."""
    import higher

    network = Network(loss, params)
    sgd = torch.optim.SGD(network.parameters(), lr=RATE)
    with higher.innerloop_ctx(network, sgd, copy_initial_weights=False) as (copy, optimizer):
        for _ in range(steps):
            optimizer.step(copy(*support))
        return torch.autograd.grad(copy(*query), list(network.parameters()))


def by_torchopt(loss: Loss, params, support, query, steps: int) -> Sequence[torch.Tensor]:
    """Differentiates torchopt's MetaSGD (Ren et al. 2023)."""
    import torchopt

    network = Network(loss, params)
    start = list(network.parameters())
    optimizer = torchopt.MetaSGD(network, lr=RATE)
    for _ in range(steps):
        optimizer.step(network(*support))
    return torch.autograd.grad(network(*query), start)


LIBRARIES = {"torch": plain, "higher": by_higher, "torchopt": by_torchopt}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("library", "problem", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    flags = parser.parse_args()
    data = np.load(Path(flags.folder) / f"{flags.problem}.npz")

    def tensors(prefix: str, dtype: torch.dtype) -> list[torch.Tensor]:
        names = sorted(name for name in data.files if name.startswith(prefix))
        return [torch.tensor(data[name], dtype=dtype) for name in names]

    def gradient(dtype: torch.dtype) -> Gradient:
        torch.set_default_dtype(dtype)
        given = [tensors(prefix, dtype) for prefix in ("param", "support", "query")]

        def loss(params, x, y):
            return LOSSES[flags.problem](torch, params, x, y)

        return lambda: LIBRARIES[flags.library](loss, *given, flags.steps)

    single = gradient(torch.float32)
    before = process.memory()
    process.reset_peak_memory()
    single()
    added = process.peak_memory() - before
    seconds = []
    for _ in range(flags.repeats):
        start = time.perf_counter()
        single()
        seconds.append(time.perf_counter() - start)
    exact = np.concatenate([g.detach().numpy().ravel() for g in gradient(torch.float64)()])
    np.save(Path(flags.folder) / "gradient.npy", exact)
    print(json.dumps({"seconds": float(np.median(seconds)), "bytes": added}))


if __name__ == "__main__":
    main()
