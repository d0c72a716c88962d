"""What a comparison of meta-gradients found: Markdown, CSV and a figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.runtime.files import atomic_write

if TYPE_CHECKING:
    from dsaml_jax.commands.compare import Comparison

MIB = 2**20


def to_markdown(experiment: Experiment, compared: Comparison) -> str:
    """Final scores, cost, and what follows from them."""
    seeds = sorted({seed for results in compared.results.values() for seed in results})
    done = sum(map(len, compared.results.values()))
    planned = len(experiment.comparison.variants) * len(experiment.comparison.seeds)
    lines = [
        "# Meta-gradients compared",
        "",
        f"{experiment.meta.steps} meta-steps of {experiment.tasks.meta_batch} annotators from the "
        f"same population model, {experiment.inner.steps} inner steps; seeds "
        f"{', '.join(map(str, seeds))} ({done} of {planned} runs); data {experiment.data.name}.",
        "",
        "| variant | runs | adapted CCC | 95 % interval | least to most over seeds "
        "| adapted − population | its interval | meta-steps chosen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    means = summary(compared)
    for name, (ccc, gain) in means.items():
        each = [run_result.ccc[0] for run_result in compared.results[name].values()]
        chosen = ", ".join(str(run_result.chosen) for run_result in compared.results[name].values())
        lines.append(
            f"| {name} | {len(each)} | {ccc[0]:.3f} | {ccc[1]:.3f} to {ccc[2]:.3f} | "
            f"{min(each):.3f} to {max(each):.3f} | {gain[0]:+.3f} | {gain[1]:+.3f} to "
            f"{gain[2]:+.3f} | {chosen} |"
        )
    lines += [
        "",
        "Intervals are bootstraps over annotators, their ends averaged over seeds. The meta-step "
        "is chosen on validation; 0: no meta-training was better than any.",
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
    """{variant: (CCC, gain)}, each (mean, low, high), averaged over seeds."""
    return {
        name: tuple(
            np.mean([getattr(run_result, field) for run_result in results.values()], axis=0)
            for field in ("ccc", "gain")
        )
        for name, results in compared.results.items()
    }


def advice(compared: Comparison) -> list[str]:
    """What the numbers support, and no more."""
    means = summary(compared)
    best = max(means, key=lambda name: means[name][0][0])
    tied = [name for name in means if means[name][0][2] >= means[best][0][0]]
    sentences = [f"Highest adapted CCC: {best} ({means[best][0][0]:.3f})."]
    if len(tied) > 1:
        others = ", ".join(name for name in tied if name != best)
        sentences.append(f"Not told apart from it by these annotators: {others}.")
    helped = [name for name in means if means[name][1][1] > 0]
    sentences.append(
        f"Better than the population model, interval above 0: {', '.join(helped)}."
        if helped
        else "No variant's interval against the population model lies above 0 at this size."
    )
    untrained = [
        name
        for name, results in compared.results.items()
        if all(run_result.chosen == 0 for run_result in results.values())
    ]
    if untrained:
        sentences.append(
            "Meta-training did not improve on its first weights on validation, so that these rows "
            f"do not tell meta-gradients apart: {', '.join(untrained)}."
        )
    for steps, by_variant in list(compared.costs.items())[-1:]:
        known = [name for name in tied if name in by_variant and name not in untrained]
        if known:
            fast = min(known, key=lambda name: by_variant[name].seconds)
            small = min(known, key=lambda name: by_variant[name].temp_bytes)
            sentences.append(
                "Of the highest and those not told apart from it, where meta-training was of use, "
                f"at {steps} inner steps {fast} is the fastest and {small} needs the least memory."
            )
    return sentences


def to_rows(compared: Comparison) -> Iterator[tuple]:
    """Long-format rows, the first of which is the header."""
    yield "variant", "seed", "inner_steps", "meta_step", "quantity", "value", "low", "high"
    for name, results in compared.results.items():
        for seed, run_result in results.items():
            yield name, seed, "", "", "adapted_ccc", *run_result.ccc
            yield name, seed, "", "", "adapted_minus_population_ccc", *run_result.gain
            yield name, seed, "", "", "chosen_meta_step", run_result.chosen, "", ""
            for step, cosine in run_result.cosine.items():
                yield name, seed, "", step, "cosine_first_order_exact", cosine, "", ""
    for steps, by_variant in compared.costs.items():
        for name, cost in by_variant.items():
            yield name, "", steps, "", "seconds", cost.seconds, "", ""
            yield name, "", steps, "", "temp_bytes", cost.temp_bytes, "", ""


def figure(path: Path, compared: Comparison) -> None:
    """Final CCC; cosine of first order to exact over training; time and memory against K."""
    drawn = Figure(figsize=(10, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(drawn)
    (scores, cosines), (times, memory) = drawn.subplots(2, 2)
    means = summary(compared)
    names = list(means)
    ccc = np.array([means[name][0] for name in names])
    scores.errorbar(
        ccc[:, 0], range(len(names)), xerr=np.abs(ccc[:, 1:] - ccc[:, :1]).T, fmt="o", capsize=3
    )
    scores.set_yticks(range(len(names)), names)
    scores.invert_yaxis()
    scores.set_title("adapted CCC on test, 95 %", fontsize=10)
    for name, results in compared.results.items():
        series = [run_result.cosine for run_result in results.values()]
        steps = sorted(set.intersection(*map(set, series)))
        cosines.plot(steps, [np.mean([s[step] for s in series]) for step in steps], label=name)
    cosines.set_title("cosine(first order, exact) over training", fontsize=10)
    cosines.set_xlabel("meta-step")
    for axis, field, unit, title in (
        (times, "seconds", 1, "seconds of a meta-gradient"),
        (memory, "temp_bytes", MIB, "temporary memory, MiB"),
    ):
        for name in names:
            found = {k: by[name] for k, by in compared.costs.items() if name in by}
            axis.plot(list(found), [getattr(c, field) / unit for c in found.values()], marker="o")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("inner steps")
    drawn.legend(*cosines.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for axis in drawn.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#EEEEEE", linewidth=0.8)
    with atomic_write(path) as file:
        drawn.savefig(file, format="png", metadata={"Software": None})


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
    lines = ["Cosine of the first-order to the exact meta-gradient, first and last measured:", ""]
    for name, results in compared.results.items():
        ends = [
            (run_result.cosine[min(run_result.cosine)], run_result.cosine[max(run_result.cosine)])
            for run_result in results.values()
            if run_result.cosine
        ]
        if ends:
            first, last = np.mean(ends, axis=0)
            lines.append(f"- {name}: {first:.3f}, {last:.3f}")
    return lines
