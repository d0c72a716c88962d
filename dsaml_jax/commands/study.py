"""--mode=study: how meta-gradients of a trained model agree, what they cost, curvature, noise."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dsaml_jax.config.estimators import ImplicitConfig
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.data.tables import Tables
from dsaml_jax.errors import UserError
from dsaml_jax.meta import ENGINES, Engine, Estimator, Reptile, Unrolled
from dsaml_jax.meta.diagnostics import Diagnosis, Measured, measure, scalars, similarity
from dsaml_jax.model.objective import dsaml_problem
from dsaml_jax.model.weights import Weights
from dsaml_jax.reports.study import Estimate, study_figure, study_table
from dsaml_jax.runtime.files import write_json, write_text
from dsaml_jax.training.diagnosis import check_study, make_diagnosis, study_key
from dsaml_jax.training.stages import restore
from dsaml_jax.training.step import draw_meta_batch

EXACT = "exact, reverse"
REPEATS = 3


def study_checkpoint(experiment: Experiment, workdir: Path) -> str:
    """Studies the meta-learned weights of an earlier run; see `study`.

    Raises:
      UserError: there are none, or there is nothing to study.
    """
    check_study(experiment.inner, experiment.tasks)
    corpora = load_corpora(experiment)
    trained = restore(experiment, workdir, corpora)
    if trained.meta is None:
        raise UserError(f"{workdir} holds no meta-learned model; set data.labels to 'personal'.")
    return study(experiment, corpora["train"].tables, trained.meta, workdir)


def study(experiment: Experiment, tables: Tables, weights: Weights, workdir: Path) -> str:
    """Writes `study.json`, `study.md`, and `figures/study.png`; returns the Markdown.

    The tasks are `diagnostics.batches` meta-batches of training annotators, drawn with another key
    than training uses.
    """
    key = study_key(experiment.seed)
    diagnosis = make_diagnosis(
        experiment.model, experiment.inner, experiment.tasks, experiment.diagnostics.iterations, key
    )
    each = [
        jax.device_get(diagnosis(weights, tables, i)) for i in range(experiment.diagnostics.batches)
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
    text = study_table(experiment, mean, estimates, reference=EXACT)
    write_text(workdir / "study.md", text)
    study_figure(
        workdir / "figures" / "study.png",
        losses=np.asarray(mean.losses),
        cosine=np.asarray(mean.step_cosine),
        norm=np.asarray(mean.step_norm),
        eigenvalues=np.asarray(mean.eigenvalues),
    )
    return text


def estimators(experiment: Experiment) -> dict[str, Estimator]:
    """Returns the estimators to compare: exact by every engine, and those that approximate it."""
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
    """Measures every estimator's mean gradient over one meta-batch: direction and cost."""
    functions, arguments = {}, {}
    for name, estimator in estimators(experiment).items():
        made = mean_gradient(experiment, estimator, tables, weights, key)
        functions[name], arguments[name] = made
    measured = measure(functions, arguments, REPEATS)
    exact, _ = measured[EXACT].result

    def estimate(found: Measured) -> Estimate:
        gradient, numbers = found.result
        cosine = similarity.cosines(gradient, exact)
        norm = similarity.norms(gradient)
        return Estimate(_finite(norm), _finite(cosine), _finite(numbers), found.cost)

    return {name: estimate(found) for name, found in measured.items()}


def mean_gradient(
    experiment: Experiment, estimator: Estimator, tables: Tables, weights: Weights, key: jax.Array
) -> tuple[Any, tuple]:
    """Returns mean(meta_params, tasks, keys) -> (mean gradient, numbers), and its arguments."""
    problem, inner = dsaml_problem(experiment.model, train=True), experiment.inner.loop()
    one = functools.partial(estimator, problem, inner)

    def mean(meta_params, tasks, keys):
        result, gradients = jax.vmap(one, in_axes=(None, 0, 0))(meta_params, tasks, keys)
        return jax.tree.map(lambda x: x.mean(0), (gradients.params, result.numbers))

    tasks, keys = draw_meta_batch(experiment.tasks, weights.batch_stats, tables, key, 0)
    return mean, (weights.meta_params, tasks, keys)


def _finite(values: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}
