"""Report on a comparison of variants: Markdown, CSV and figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.meta.diagnostics import Cost
from dsaml_jax.reports.style import new_figure, save_plain
from dsaml_jax.reports.tables import MIB

RIVALS = ("population_widened", "wrong_listener")
"""Rows that the adapted model is compared with besides the population model, where they exist."""


class RunResult(NamedTuple):
    """The result of one run.

    Attributes:
      ccc: CCC of the adapted model on the evaluated split, (mean, low, high) with a 95 % bootstrap
        interval over annotators.
      gain: the same for adapted minus population.
      chosen: the meta-step whose weights were best on validation; 0 for those before meta-training.
      cosine: {meta-step: cosine of the first-order to the exact meta-gradient} during training.
      others: {row of `RIVALS`: the same as `gain` for adapted minus that row}.
      seconds: of training all stages.
    """

    ccc: tuple[float, float, float]
    gain: tuple[float, float, float]
    chosen: int
    cosine: dict[int, float]
    others: dict[str, tuple[float, float, float]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The results and costs of all variants.

    Attributes:
      results: {variant: {seed: result of the run}}.
      costs: {inner steps: {variant: cost of one meta-gradient}}.
    """

    results: dict[str, dict[int, RunResult]]
    costs: dict[int, dict[str, Cost]]


def comparison_table(experiment: Experiment, compared: Comparison) -> str:
    """Formats scores, costs and advice as Markdown."""
    seeds = sorted({seed for results in compared.results.values() for seed in results})
    done = sum(map(len, compared.results.values()))
    planned = len(experiment.comparison.variants) * len(experiment.comparison.seeds)
    lines = [
        "# Variants compared",
        "",
        f"{experiment.meta.steps} meta-steps of {experiment.tasks.meta_batch} annotators, "
        f"{experiment.inner.steps} inner steps, unless a variant says otherwise; seeds "
        f"{', '.join(map(str, seeds))} ({done} of {planned} runs); data {experiment.data.name}, "
        f"split {experiment.evaluation.split}.",
        "",
        "| variant | runs | adapted CCC | 95 % interval | least to most over seeds | "
        + "".join(f"adapted − {row} | its interval | " for row in ("population", *RIVALS))
        + "meta-steps chosen | minutes |",
        "|---" * (7 + 2 * (1 + len(RIVALS))) + "|",
    ]
    means = summary(compared)
    for name, (ccc, gain) in means.items():
        runs = compared.results[name].values()
        by_seed = [run.ccc[0] for run in runs]
        chosen = ", ".join(str(run.chosen) for run in runs)
        lines.append(
            f"| {name} | {len(runs)} | {ccc[0]:.3f} | {ccc[1]:.3f} to {ccc[2]:.3f} | "
            f"{min(by_seed):.3f} to {max(by_seed):.3f} | "
            + "".join(_difference(each) for each in (gain, *rivals(runs).values()))
            + f"{chosen} | {np.mean([run.seconds for run in runs]) / 60:.1f} |"
        )
    lines += [
        "",
        "Intervals are bootstraps over annotators, their ends averaged over seeds. The meta-step "
        "is chosen on validation; 0 stands for the weights before meta-training. Minutes are those "
        "of training all stages, whether or not a variant shares them with another.",
        "",
        *_cost_lines(compared),
        *_cosine_lines(compared),
        "",
        "## Which to choose",
        "",
        *[f"- {sentence}" for sentence in advice(compared)],
    ]
    return "\n".join(lines) + "\n"


def summary(compared: Comparison) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Averages over seeds: {variant: (CCC, gain)}, each (mean, low, high)."""
    return {
        name: (
            np.mean([run.ccc for run in results.values()], axis=0),
            np.mean([run.gain for run in results.values()], axis=0),
        )
        for name, results in compared.results.items()
    }


def rivals(runs: Collection[RunResult]) -> dict[str, np.ndarray | None]:
    """Averages the differences from `RIVALS` over runs; None for a row that a run lacks."""
    return {
        row: np.mean([run.others[row] for run in runs], axis=0)
        if all(row in run.others for run in runs)
        else None
        for row in RIVALS
    }


def _difference(interval: np.ndarray | None) -> str:
    """Returns two cells of the table."""
    if interval is None:
        return "– | – | "
    return f"{interval[0]:+.4f} | {interval[1]:+.4f} to {interval[2]:+.4f} | "


def advice(compared: Comparison) -> list[str]:
    """Lists the conclusions that the numbers support."""
    means = summary(compared)
    best = max(means, key=lambda name: means[name][0][0])
    tied = [name for name in means if means[name][0][2] >= means[best][0][0]]
    sentences = [f"Highest adapted CCC: {best} ({means[best][0][0]:.3f})."]
    if len(tied) > 1:
        others = ", ".join(name for name in tied if name != best)
        sentences.append(f"Not distinguishable from it with these annotators: {others}.")
    helped = [name for name in means if means[name][1][1] > 0]
    sentences.append(
        f"Better than the population model, interval above 0: {', '.join(helped)}."
        if helped
        else "No variant's interval against the population model lies above 0 at this size."
    )
    untrained = [
        name
        for name, results in compared.results.items()
        if all(run.chosen == 0 for run in results.values())
    ]
    if untrained:
        sentences.append(
            "Meta-training did not improve on its initial weights on validation, so these rows say "
            f"nothing about meta-gradients: {', '.join(untrained)}."
        )
    for steps, by_variant in list(compared.costs.items())[-1:]:
        known = [name for name in tied if name in by_variant and name not in untrained]
        if known:
            fast = min(known, key=lambda name: by_variant[name].seconds)
            small = min(known, key=lambda name: by_variant[name].temp_bytes)
            costs = (
                f"{fast} is the fastest and needs the least memory at {steps} inner steps"
                if fast == small
                else f"{fast} is the fastest at {steps} inner steps, and {small} needs the least "
                "memory"
            )
            sentences.append(
                "Among the variants with the highest CCC or one not distinguishable from it, and "
                f"that meta-training improved, {costs}."
            )
    return sentences


def csv_rows(compared: Comparison) -> Iterator[tuple]:
    """Yields the rows of a table in long format, the header first."""
    yield "variant", "seed", "inner_steps", "meta_step", "quantity", "value", "low", "high"
    for name, results in compared.results.items():
        for seed, run in results.items():
            yield name, seed, "", "", "adapted_ccc", *run.ccc
            yield name, seed, "", "", "adapted_minus_population_ccc", *run.gain
            for row, interval in run.others.items():
                yield name, seed, "", "", f"adapted_minus_{row}_ccc", *interval
            yield name, seed, "", "", "training_seconds", run.seconds, "", ""
            yield name, seed, "", "", "chosen_meta_step", run.chosen, "", ""
            for step, cosine in run.cosine.items():
                yield name, seed, "", step, "cosine_first_order_exact", cosine, "", ""
    for steps, by_variant in compared.costs.items():
        for name, cost in by_variant.items():
            yield name, "", steps, "", "seconds", cost.seconds, "", ""
            yield name, "", steps, "", "temp_bytes", cost.temp_bytes, "", ""


def comparison_figure(path: Path, compared: Comparison) -> None:
    """Draws final CCC, cosine(first order, exact) over training, and time and memory by K."""
    figure = new_figure(height=7)
    (scores, cosines), (times, memory) = figure.subplots(2, 2)
    means = summary(compared)
    names = list(means)
    ccc = np.array([means[name][0] for name in names])
    scores.errorbar(
        ccc[:, 0], range(len(names)), xerr=np.abs(ccc[:, 1:] - ccc[:, :1]).T, fmt="o", capsize=3
    )
    scores.set_yticks(range(len(names)), names)
    scores.invert_yaxis()
    scores.set_title("adapted CCC, 95 %", fontsize=10)
    for name, results in compared.results.items():
        series = [run.cosine for run in results.values()]
        steps = sorted(set.intersection(*map(set, series)))
        cosines.plot(steps, [np.mean([s[step] for s in series]) for step in steps], label=name)
    cosines.set_title("cosine(first order, exact) over training", fontsize=10)
    cosines.set_xlabel("meta-step")
    for axis, field, unit, title in (
        (times, "seconds", 1, "seconds of a meta-gradient"),
        (memory, "temp_bytes", MIB, "temporary memory, MiB"),
    ):
        for name in names:
            costs = {k: by[name] for k, by in compared.costs.items() if name in by}
            axis.plot(list(costs), [getattr(c, field) / unit for c in costs.values()], marker="o")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("inner steps")
    figure.legend(*cosines.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_plain(figure, path)


def _cost_lines(compared: Comparison) -> list[str]:
    if not compared.costs:
        return []
    steps = list(compared.costs)
    names = list(dict.fromkeys(name for by in compared.costs.values() for name in by))
    lines = [
        f"One meta-gradient on {jax.devices()[0].device_kind}, seconds / MiB of temporary memory, "
        "by inner steps K:",
        "",
        "| variant | " + " | ".join(f"K = {k}" for k in steps) + " |",
        "|---|" + "---|" * len(steps),
    ]
    for name in names:
        cells = [
            f"{by[name].seconds:.3g} / {by[name].temp_bytes / MIB:.0f}" if name in by else "–"
            for by in compared.costs.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cosine_lines(compared: Comparison) -> list[str]:
    lines = []
    for name, results in compared.results.items():
        ends = [
            (run.cosine[min(run.cosine)], run.cosine[max(run.cosine)])
            for run in results.values()
            if run.cosine
        ]
        if ends:
            first, last = np.mean(ends, axis=0)
            lines.append(f"- {name}: {first:.3f}, {last:.3f}")
    if not lines:
        return []
    title = "Cosine of the first-order to the exact meta-gradient, first and last measured:"
    return ["", title, "", *lines]
