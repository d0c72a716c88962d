"""--mode=compare: every variant of an experiment, over seeds.

Every (variant, seed) is a run of its own, in `runs/VARIANT_SEED`; a comparison that was stopped
resumes with the remaining ones. Stages before meta-learning that variants have in common are
trained once for each seed, and kept in `shared/`.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsaml_jax.commands.study import REPEATS, mean_gradient
from dsaml_jax.commands.train import train
from dsaml_jax.commands.workdir import lock_workdir, open_workdir
from dsaml_jax.config.experiment import Experiment, resolved_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.meta.diagnostics import Cost, measure
from dsaml_jax.reports.comparison import (
    RIVALS,
    Comparison,
    RunResult,
    comparison_figure,
    comparison_table,
    csv_rows,
)
from dsaml_jax.runtime.files import PARTIAL, read_json_object, write_json, write_text
from dsaml_jax.training.diagnosis import check_study, study_key
from dsaml_jax.training.metric_writer import merged_rows, stage_seconds
from dsaml_jax.training.stages import (
    check_patterns,
    initial_meta_state,
    shared_stages,
    stage_config,
)

LOG = logging.getLogger(__name__)


def variants(experiment: Experiment) -> dict[str, Experiment]:
    """Returns the variants of the experiment.

    Raises:
      UserError: there are none, or a variant is invalid.
    """
    if not experiment.comparison.variants:
        raise UserError(
            "config.comparison.variants is empty; start from configs/study_meta_gradients.py."
        )
    made = experiment.variants()
    for variant in made.values():
        check_study(variant.inner, variant.tasks)
        check_patterns(variant)
    return made


def compare(experiment: Experiment, workdir: Path) -> str:
    """Runs the remaining variants and seeds; writes the comparison and returns its Markdown.

    `comparison.md`, `.csv`, and `.png` are updated after every run.
    """
    by_name = variants(experiment)
    results: dict[str, dict[int, RunResult]] = {}
    seconds: dict[Path, float] = {}  # of the stages that variants share
    for seed in experiment.comparison.seeds:
        for name, variant in by_name.items():
            folder = workdir / "runs" / f"{name}_{seed}"
            seeded = dataclasses.replace(variant, seed=seed)
            _train(seeded, folder, workdir)
            result = _read(folder)
            for stage in shared_stages(seeded):
                path = _shared(workdir, seeded, stage)
                seconds[path] = stage_seconds(folder, stage) or seconds.get(path, 0.0)
                result = result._replace(seconds=result.seconds + seconds[path])
            results.setdefault(name, {})[seed] = result
            _write(experiment, Comparison(results, {}), workdir)
            LOG.info("%s, seed %d: adapted CCC %.3f", name, seed, results[name][seed].ccc[0])
    return _write(experiment, Comparison(results, _costs(experiment, by_name, workdir)), workdir)


def _write(experiment: Experiment, compared: Comparison, workdir: Path) -> str:
    text = comparison_table(experiment, compared)
    write_text(workdir / "comparison.md", text)
    table = io.StringIO(newline="")
    csv.writer(table).writerows(csv_rows(compared))
    write_text(workdir / "comparison.csv", table.getvalue())
    comparison_figure(workdir / "comparison.png", compared)
    return text


def _train(variant: Experiment, folder: Path, workdir: Path) -> None:
    """Trains and evaluates a variant unless done, reusing the stages that another one trained."""
    if (folder / "results.json").exists():
        open_workdir(folder, variant, fresh=False)  # raises if the results are another config's
        return
    shared = {stage: _shared(workdir, variant, stage) for stage in shared_stages(variant)}
    for path in (workdir / "shared", *shared.values()):
        if path.exists() and not path.is_dir():
            raise UserError(
                f"{path} is not a folder, where models that variants share are kept; delete it, "
                "and run the same command again."
            )
    with lock_workdir(folder, variant, fresh=True):
        own = {stage: folder / "checkpoints" / stage for stage in shared}
        for stage, path in shared.items():
            if path.exists() and not own[stage].exists():
                _copy(path, own[stage])
        train(variant, folder)
        for stage, path in shared.items():
            if not path.exists():
                _copy(own[stage], path)


def _shared(workdir: Path, variant: Experiment, stage: str) -> Path:
    """Returns the folder of a stage's checkpoints, named after the config they depend on."""
    config = json.dumps(stage_config(variant, stage), sort_keys=True)
    digest = hashlib.sha256(config.encode()).hexdigest()[:12]
    return workdir / "shared" / f"{stage}_{digest}_{variant.seed}"


def _copy(source: Path, target: Path) -> None:
    """Copies a folder of checkpoints atomically.

    Raises:
      UserError: It cannot be read, or the copy cannot be written.
    """
    partial = target.with_name(target.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.rename(target)
    except OSError as error:
        # `copytree` copies what it can, and then raises a list of (source, target, reason).
        several = isinstance(error, shutil.Error)
        reason = error.args[0][0][2] if several else error.strerror or error
        raise UserError(
            f"{source} cannot be copied to {target} ({reason}); fix its permissions or free disk "
            f"space, or delete {source} to train that model again, and run the same command again."
        ) from error


def _read(folder: Path) -> RunResult:
    """Reads the results and the log of a run; raises UserError if they are damaged."""
    rows = merged_rows(folder / "metrics.jsonl", "meta")

    def by_step(name: str) -> dict[int, float]:
        return {row["step"]: row[name] for row in rows if row.get(name) is not None}

    selection = by_step("validation/selection")
    if not selection:
        raise UserError(
            f"{folder / 'metrics.jsonl'} holds no validation of the meta stage; delete {folder} to "
            "run it again."
        )
    path = folder / "results.json"
    try:
        results = read_json_object(path)

        def interval(table: str, row: str) -> tuple[float, float, float]:
            found = results[table][row]["ccc"]
            return found["mean"], found["low"], found["high"]

        ccc, gain = interval("intervals", "adapted"), interval("differences", "population")
        others = {
            row: interval("differences", row) for row in RIVALS if row in results["differences"]
        }
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it to evaluate again."
        ) from error
    return RunResult(
        ccc=ccc,
        gain=gain,
        chosen=max(selection, key=selection.__getitem__),
        cosine=by_step("diagnostics/cosine/all"),
        others=others,
        seconds=stage_seconds(folder, "meta"),
    )


def _costs(
    experiment: Experiment, by_name: dict[str, Experiment], workdir: Path
) -> dict[int, dict[str, Cost]]:
    """Measures one meta-batch's gradient at fresh weights, for each number of inner steps.

    Variants that need more inner steps are left out. `costs.json` is updated after each number.
    """
    file = workdir / "costs.json"
    costs = _measured(file)
    all_steps = experiment.comparison.cost_steps
    if all(str(steps) in costs for steps in all_steps):
        return _parse_costs(costs, all_steps)
    tables = {
        source: load_corpora(variant)["train"].tables
        for source, variant in {_source(each): each for each in by_name.values()}.items()
    }
    for steps in all_steps:
        if str(steps) in costs:
            continue
        functions, arguments = {}, {}
        for name, variant in by_name.items():
            try:
                inner = dataclasses.replace(variant.inner, steps=steps)
            except UserError:
                continue
            changed = dataclasses.replace(variant, inner=inner)
            weights = initial_meta_state(changed).weights
            functions[name], arguments[name] = mean_gradient(
                changed,
                inner.build_estimator(),
                tables[_source(variant)],
                weights,
                study_key(experiment.seed),
            )
        measured = measure(functions, arguments, REPEATS)
        costs[str(steps)] = {name: each.cost._asdict() for name, each in measured.items()}
        write_json(file, costs)
        LOG.info("cost at %d inner steps measured", steps)
    return _parse_costs(costs, all_steps)


def _source(variant: Experiment) -> str:
    """Returns what the tables of a variant depend on."""
    config = resolved_config(variant)
    return json.dumps([config["data"], config["audio"]], sort_keys=True)


def _measured(file: Path) -> dict[str, Any]:
    """Returns what `costs.json` holds; nothing, with a warning, if it is damaged."""
    if not file.exists():
        return {}
    try:
        costs = read_json_object(file)
        _parse_costs(costs, [int(steps) for steps in costs])
    except (ValueError, TypeError, AttributeError, OSError) as error:
        LOG.warning("%s is damaged (%s): the costs are measured again", file, error)
        return {}
    return costs


def _parse_costs(costs: dict[str, Any], all_steps: Sequence[int]) -> dict[int, dict[str, Cost]]:
    return {
        steps: {name: Cost(**cost) for name, cost in costs[str(steps)].items()}
        for steps in all_steps
    }
