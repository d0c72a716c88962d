"""Parity of the PyTorch baseline of the benchmarks with the release."""

import dataclasses

import flax.traverse_util
import jax
import numpy as np
import pytest

from benchmarks.problem import Problem
from tests.golden_numbers import SETS, Golden, relative_error

torch = pytest.importorskip("torch", reason="requirements-benchmarks.txt is not installed")

SUPPORTED = [stem for stem in SETS if Golden(stem, "float64").sizes["position"] == "relative_key"]
"""Golden sets with the only position term that the baseline has."""


@pytest.mark.parametrize("stem", SUPPORTED, ids=lambda stem: stem.name)
@pytest.mark.parametrize("estimator", ["first_order", "second_order"])
def test_torch_meta_gradient_parity(stem, estimator):
    from benchmarks import torch_baseline

    with jax.enable_x64(True):
        golden = Golden(stem, "float64")
        params = golden.variables("batch")["params"]
    weights = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    known = {field.name for field in dataclasses.fields(Problem)}
    problem = Problem(
        **{name: value for name, value in golden.sizes.items() if name in known},
        tasks=1,
        inner_steps=golden.json["inner_steps"],
        inner_rate=golden.json["inner_lr"],
        queries=golden.json["config"]["query"],
        estimator=estimator,
    )
    model = torch_baseline.build(problem, weights)
    parts = [golden.arrays, golden.arrays]
    song = {
        "log_mel": lambda arrays, part: arrays[f"{part}/log_mel"],
        "embedding": lambda arrays, part: arrays[f"{part}/global"][:, 0],
        "curve": lambda arrays, part: np.stack(
            [arrays[f"{part}/{name}"] for name in ("arousal", "valence")], -1
        ),
    }
    tasks = {
        name: torch.from_numpy(
            np.concatenate(
                [of(a, part) for a, part in zip(parts, ("support", "query"), strict=True)]
            )[None].astype(np.float64)
        )
        for name, of in song.items()
    }
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    value, _ = torch_baseline.meta_step(model, optimizer, tasks, problem)
    assert relative_error(value, golden.arrays[f"{estimator}/query_loss"]) <= 1e-6
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    gradients = {
        path: torch_baseline.swap_axes_back(path, grads[torch_baseline.torch_name(path)].numpy())
        for path in weights
    }
    golden.assert_gradients_match(
        flax.traverse_util.unflatten_dict(gradients, sep="/"), estimator, 1e-6
    )
