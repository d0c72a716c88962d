"""Report on the meta-gradients of a trained model: Markdown and figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.meta.diagnostics import Cost, Diagnosis, similarity
from dsaml_jax.reports.style import BLUE, ORANGE, SKY, new_figure, save

MIB = 2**20


class Estimate(NamedTuple):
    """An estimate of the mean meta-gradient of a meta-batch.

    Attributes:
      norm: {module: norm of the gradient}.
      cosine: {module: cosine to the exact gradient}.
      numbers: what the estimator reports about itself.
      cost: time and temporary memory.
    """

    norm: dict[str, float]
    cosine: dict[str, float]
    numbers: dict[str, float]
    cost: Cost


def study_table(
    experiment: Experiment, diagnosis: Diagnosis, estimates: Mapping[str, Estimate], reference: str
) -> str:
    """Formats a study as Markdown.

    Args:
      experiment: its inner loop, tasks and diagnostics apply.
      diagnosis: averaged over meta-batches.
      estimates: {estimator: its estimate}.
      reference: the estimator to which time is relative.
    """
    inner, noise = experiment.inner, diagnosis.noise
    lines = [
        "# Meta-gradients of this model",
        "",
        f"{inner.steps} inner steps over {inner.adapt}, rates {inner.rates}; "
        f"{experiment.diagnostics.batches} meta-batches of {experiment.tasks.meta_batch} tasks.",
        "",
        "| module | norm, exact | cosine(first order, exact) | share of second order |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {diagnosis.norm[name]:.3g} | {diagnosis.cosine[name]:.4f} | "
        f"{diagnosis.share[name]:.3f} |"
        for name in diagnosis.norm
    ]
    lines += [
        "",
        "Share: |exact - first order| / |exact|. The same, carried back through the inner steps:",
        "",
        "| step | support loss | largest eigenvalue | smallest | cosine to last | norm / last |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {k} | {diagnosis.losses[k]:.4f} | {diagnosis.eigenvalues[k, 0]:.3g} | "
        f"{diagnosis.eigenvalues[k, 1]:.3g} | {diagnosis.step_cosine[k]:.4f} | "
        f"{diagnosis.step_norm[k]:.3f} |"
        for k in range(len(diagnosis.losses))
    ]
    resolved = np.isfinite(noise.scale)
    scale = f"{noise.scale:.1f} tasks" if resolved else "not resolved by so few batches"
    lines += [
        "",
        f"Gradient noise scale tr Σ / |G|²: {scale} (tr Σ {noise.spread:.3g}, |G|² "
        f"{noise.signal:.3g}); the meta-batch is {experiment.tasks.meta_batch}.",
        "",
        "| estimator | norm | cosine to exact | temp MiB | ms | time / reverse | reports |",
        "|---|---|---|---|---|---|---|",
    ]
    slow = estimates[reference].cost.seconds
    for name, estimate in estimates.items():
        reports = ", ".join(f"{number} {value:.2g}" for number, value in estimate.numbers.items())
        cosine, cost = estimate.cosine.get(similarity.ALL, float("nan")), estimate.cost
        lines.append(
            f"| {name} | {estimate.norm[similarity.ALL]:.3g} | {cosine:.4f} | "
            f"{cost.temp_bytes / MIB:.1f} | {cost.seconds * 1e3:.1f} | {cost.seconds / slow:.2f} | "
            f"{reports} |"
        )
    return "\n".join(lines) + "\n"


def study_figure(
    path: str | os.PathLike[str],
    *,
    losses: np.ndarray,
    cosine: np.ndarray,
    norm: np.ndarray,
    eigenvalues: np.ndarray,
) -> None:
    """Draws the loss, its curvature and the propagated meta-gradient along K inner steps.

    Args:
      path: the PNG to write.
      losses: [K], the support loss before each step.
      cosine, norm: [K + 1], of the gradient with respect to θ_0 ... θ_K, relative to that at θ_K.
      eigenvalues: [K, 2], the largest and smallest eigenvalue of the support loss's Hessian.
    """
    figure = new_figure(height=3.4)
    left, middle, right = figure.subplots(1, 3)
    left.plot(losses, color=BLUE, marker="o", markersize=3)
    left.set_title("support loss", fontsize=10)
    for values, label, color in zip(
        eigenvalues.T, ("largest", "smallest"), (ORANGE, SKY), strict=True
    ):
        middle.plot(values, color=color, marker="o", markersize=3, label=label)
    middle.set_title("Hessian eigenvalues", fontsize=10)
    right.plot(cosine, color=BLUE, marker="o", markersize=3, label="cosine to first order")
    right.plot(norm, color=ORANGE, marker="o", markersize=3, label="norm / first order")
    right.set_title("gradient carried back to step", fontsize=10)
    for axis in (left, middle, right):
        axis.set_xlabel("inner step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (middle, right):
        axis.legend(frameon=False, fontsize=8)
    save(figure, path)
