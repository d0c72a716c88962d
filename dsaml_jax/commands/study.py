"""What the meta-gradients of a trained model are like: agreement, curvature, noise, cost."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dsaml_jax.config.estimators import ImplicitConfig
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Tables
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.eval_set import Weights
from dsaml_jax.meta import ENGINES, Engine, Estimator, MetaParams, Reptile, Unrolled
from dsaml_jax.meta.diagnostics import Cost, Diagnosis, Measured, measure, scalars, similarity
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.reports import figures
from dsaml_jax.runtime.files import write_json, write_text
from dsaml_jax.training.diagnosis import check_study, make_diagnosis, study_key
from dsaml_jax.training.stages import restore
from dsaml_jax.training.step import draw_meta_batch

EXACT = "exact, reverse"
REPEATS = 3
MIB = 2**20


class Estimate(NamedTuple):
    """One way to the mean meta-gradient of a meta-batch.

    Attributes:
      norm, cosine: of the gradient, and to the exact one, by module.
      numbers: what the estimator reports.
      cost: time and temporary memory.
    """

    norm: dict[str, float]
    cosine: dict[str, float]
    numbers: dict[str, float]
    cost: Cost


def study_checkpoint(experiment: Experiment, workdir: Path) -> str:
    """`study` of the meta-learned weights of an earlier run.

    Raises:
      UserError: there are none, or there is nothing to study.
    """
    check_study(experiment)
    trained = restore(experiment, workdir)
    if trained.meta is None:
        raise UserError(f"{workdir} holds no meta-learned model; set data.labels to 'personal'.")
    return study(experiment, load_corpora(experiment)["train"].tables, trained.meta, workdir)


def study(experiment: Experiment, tables: Tables, weights: Weights, workdir: Path) -> str:
    """Writes `study.json`, `study.md` and `figures/study.png`; returns the Markdown.

    Tasks are those of training, `diagnostics.batches` meta-batches that it did not draw.
    """
    key, diagnosis = study_key(experiment), make_diagnosis(experiment)
    meta_params = MetaParams(weights.params, weights.rates)
    each = [
        jax.device_get(diagnosis(meta_params, weights.batch_stats, tables, i))
        for i in range(experiment.diagnostics.batches)
    ]
    mean: Diagnosis = jax.tree.map(lambda *x: np.mean(x, axis=0), *each)
    estimates = compare_estimators(experiment, tables, weights, key)
    content = {
        "diagnosis": scalars(mean),
        "estimators": {
            name: each._asdict() | {"cost": each.cost._asdict()} for name, each in estimates.items()
        },
    }
    write_json(workdir / "study.json", content)
    text = to_markdown(experiment, mean, estimates)
    write_text(workdir / "study.md", text)
    figures.study_figure(
        workdir / "figures" / "study.png",
        losses=mean.losses,
        cosine=mean.step_cosine,
        norm=mean.step_norm,
        eigenvalues=mean.eigenvalues,
    )
    return text


def estimators(experiment: Experiment) -> dict[str, Estimator]:
    """What is compared: exact by every engine, and the approximations that the config allows."""
    inner = experiment.inner
    found: dict[str, Estimator] = {
        f"exact, {name}": Unrolled(engine=engine) for name, engine in ENGINES.items()
    }
    if inner.steps > 3:
        chunk = round(inner.steps**0.5)
        found[f"exact, mixed, chunks of {chunk}"] = Unrolled(engine=Engine(mixed=True, chunk=chunk))
    if inner.steps > 1:
        found["truncated, 1 step"] = Unrolled(1)
    found["first order"] = Unrolled(0)
    if inner.rates == "fixed":
        found["reptile"] = Reptile()
        if isinstance(inner.estimator, ImplicitConfig):
            found["implicit"] = inner.estimator.build()
    return found


def compare_estimators(
    experiment: Experiment, tables: Tables, weights: Weights, key: jax.Array
) -> dict[str, Estimate]:
    """Direction and cost of every estimator's mean gradient over one meta-batch."""
    functions, arguments = {}, {}
    for name, estimator in estimators(experiment).items():
        made = mean_gradient(experiment, estimator, tables, weights, key)
        functions[name], arguments[name] = made
    measured = measure(functions, arguments, REPEATS)
    exact, _ = measured[EXACT].result

    def estimate(found: Measured) -> Estimate:
        gradient, numbers = found.result
        cosine = similarity.cosines(gradient, exact)
        return Estimate(*map(_finite, (similarity.norms(gradient), cosine, numbers)), found.cost)

    return {name: estimate(found) for name, found in measured.items()}


def to_markdown(
    experiment: Experiment,
    diagnosis: Diagnosis,
    estimates: dict[str, Estimate],
) -> str:
    """The study as Markdown."""
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
    slow = estimates[EXACT].cost.seconds
    for name, each in estimates.items():
        reports = ", ".join(f"{number} {value:.2g}" for number, value in each.numbers.items())
        cosine, cost = each.cosine.get(similarity.ALL, float("nan")), each.cost
        lines.append(
            f"| {name} | {each.norm[similarity.ALL]:.3g} | {cosine:.4f} | "
            f"{cost.temp_bytes / MIB:.1f} | {cost.seconds * 1e3:.1f} | {cost.seconds / slow:.2f} | "
            f"{reports} |"
        )
    return "\n".join(lines) + "\n"


def mean_gradient(
    experiment: Experiment, estimator: Estimator, tables: Tables, weights: Weights, key: jax.Array
) -> tuple[Any, tuple]:
    """A function of (learner, tasks, keys) to its mean gradient and numbers, and arguments."""
    problem, inner = dsaml_problem(experiment.model, train=True), experiment.inner.loop()
    one = functools.partial(estimator, problem, inner)

    def mean(meta_params, tasks, keys):
        result, gradients = jax.vmap(one, in_axes=(None, 0, 0))(meta_params, tasks, keys)
        return jax.tree.map(lambda x: x.mean(0), (gradients.params, result.numbers))

    tasks, keys = draw_meta_batch(experiment.tasks, weights.batch_stats, tables, key, 0)
    return mean, (MetaParams(weights.params, weights.rates), tasks, keys)


def _finite(values: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}
