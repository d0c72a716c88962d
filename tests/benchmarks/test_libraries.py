"""This library's side of the comparison, and PyTorch's where it is installed."""

import numpy as np
import pytest

from benchmarks import libraries


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("libraries")
    libraries.problems(path)
    return path


def test_engines_agree_on_the_problems_that_libraries_are_compared_on(folder):
    gradients = []
    for library in ("reverse", "mixed, chunked"):
        figures = libraries.measure_ours(library, "digits", 4, 1, folder)
        assert figures["seconds"] > 0 and figures["temporary"] > 0
        gradients.append(np.load(folder / "gradient.npy"))
    np.testing.assert_allclose(*gradients, rtol=1e-10, atol=1e-14)
    assert "| digits | 4 |" in libraries.table(
        [{"problem": "digits", "steps": 4, "library": "x", "difference": 0.0, **figures}]
    )


def test_plain_pytorch_has_the_same_gradient(folder):
    torch = pytest.importorskip("torch", reason="requirements-benchmarks.txt is not installed")
    from benchmarks.libraries_torch import plain
    from benchmarks.library_losses import LOSSES

    for problem in LOSSES:
        libraries.measure_ours("mixed", problem, 2, 1, folder)
        data = np.load(folder / f"{problem}.npz")
        given = [
            [torch.tensor(data[name]) for name in sorted(data.files) if name.startswith(prefix)]
            for prefix in ("param", "support", "query")
        ]
        torch.set_default_dtype(torch.float64)
        gradient = plain(lambda *a, p=problem: LOSSES[p](torch, *a), *given, 2)
        torch.set_default_dtype(torch.float32)
        flat = np.concatenate([g.numpy().ravel() for g in gradient])
        np.testing.assert_allclose(np.load(folder / "gradient.npy"), flat, rtol=1e-9, atol=1e-13)
