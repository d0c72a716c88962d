"""Comparisons of meta-gradient estimators: a tiny one end to end, and the report's advice."""

import csv
import json

import pytest

from configs.base import estimator
from dsaml_jax.commands import compare as compare_module
from dsaml_jax.commands.compare import compare, variants
from dsaml_jax.commands.workdir import write_json
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.errors import UserError
from dsaml_jax.meta.diagnostics import Cost
from dsaml_jax.reports.comparison import Comparison, RunResult, advice
from tests import tiny

FIXED = {"rates": "fixed", "rates_learning_rate": 0.0}


def experiment(folder, variants, **changes):
    config = tiny.get_config()
    config.data.prepared = str(folder)
    config.diagnostics.every = 0
    config.comparison = dict(variants=variants, seeds=(0, 1), cost_steps=())
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


def test_a_comparison_runs_every_variant_and_resumes_where_it_stopped(tmp_path):
    workdir = tmp_path / "comparison"
    workdir.mkdir()
    one = {"reptile": {"inner": {"estimator": estimator("reptile"), **FIXED}}}
    small = {"population.steps": 2, "meta.steps": 2, "evaluation.figures": 0}
    small["comparison.cost_steps"] = (1, 4)
    # Costs measured before the comparison was stopped are not measured again.
    measured = {"reptile": {"temp_bytes": 3 * 2**20, "seconds": 0.125}}
    write_json(workdir / "costs.json", {"4": measured})
    text = compare(experiment(tmp_path / "data", one, **small), workdir)
    assert json.loads((workdir / "costs.json").read_text())["4"] == measured
    assert "| K = 1 | K = 4 |" in text and "0.125 / 3 |" in text
    assert "2 of 2 runs" in text and (workdir / "comparison.md").read_text() == text
    assert (workdir / "comparison.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((workdir / "comparison.csv").open()))
    for seed in ("0", "1"):
        assert not list((workdir / "runs" / f"reptile_{seed}" / "figures").glob("listeners*"))
        results = json.loads((workdir / "runs" / f"reptile_{seed}" / "results.json").read_text())
        (row,) = (r for r in rows if r["seed"] == seed and r["quantity"] == "adapted_ccc")
        assert float(row["value"]) == results["rows"]["adapted"]["ccc"]
        (widened,) = (
            r
            for r in rows
            if r["quantity"] == "adapted_minus_population_widened_ccc" and r["seed"] == seed
        )
        assert (
            float(widened["value"]) == results["differences"]["population_widened"]["ccc"]["mean"]
        )
        assert len(list((workdir / "shared").glob(f"population_*_{seed}"))) == 1
    before = (workdir / "runs" / "reptile_0" / "results.json").stat().st_mtime_ns
    assert compare(experiment(tmp_path / "data", one, **small), workdir) == text
    assert (workdir / "runs" / "reptile_0" / "results.json").stat().st_mtime_ns == before


def test_invalid_variants_are_rejected_by_name(tmp_path):
    with pytest.raises(UserError, match=r"variants is empty"):
        variants(experiment(tmp_path, {}))
    with pytest.raises(UserError, match=r"variants\.mine: .* no gradient for learned inner rates"):
        variants(experiment(tmp_path, {"mine": {"inner": {"estimator": estimator("reptile")}}}))
    with pytest.raises(UserError, match=r"variants\.mine\.inner has no field 'stpes'"):
        variants(experiment(tmp_path, {"mine": {"inner": {"stpes": 3}}}))


def test_advice_follows_from_the_numbers():
    def run_result(ccc, gain):
        return {
            0: RunResult(
                (ccc, ccc - 0.02, ccc + 0.02), (gain, gain - 0.01, gain + 0.01), 50, {}, {}, 60.0
            )
        }

    results = {
        "exact": run_result(0.30, 0.05),
        "first": run_result(0.29, 0.005),
        "reptile": run_result(0.20, -0.05),
    }
    cost = {4: {"exact": Cost(400, 2.0), "first": Cost(100, 1.0), "reptile": Cost(50, 0.5)}}
    text = " ".join(advice(Comparison(results, cost)))
    assert "Highest adapted CCC: exact (0.300)" in text
    assert "Not distinguishable from it with these annotators: first." in text
    assert "interval above 0: exact." in text
    assert "improved, first is the fastest and needs the least memory at 4 inner steps." in text
    assert "say nothing about meta-gradients" not in text
    results["first"] = {0: results["first"][0]._replace(chosen=0)}
    text = " ".join(advice(Comparison(results, cost)))
    assert "rows say nothing about meta-gradients: first." in text
    assert "improved, exact is the fastest and needs the least memory at 4 inner steps." in text
    results["first"] = run_result(0.29, 0.005)
    cost[4]["first"] = Cost(500, 1.0)
    text = " ".join(advice(Comparison(results, cost)))
    assert "first is the fastest at 4 inner steps, and exact needs the least memory." in text


def test_variants_share_the_stages_that_they_have_in_common(tmp_path):
    """Variants run by name; "reptile" takes over the population model of "one step"."""
    both = {
        "reptile": {"inner": {"estimator": estimator("reptile"), **FIXED}},
        "one step": {"inner": {"steps": 1, **FIXED}},
    }
    small = {"population.steps": 2, "meta.steps": 2, "comparison.seeds": (0,)}
    small["comparison.cost_steps"] = (1,)
    text = compare(experiment(tmp_path / "data", both, **small), tmp_path)
    assert len(list((tmp_path / "shared").iterdir())) == 1
    seconds = {}
    for name in both:
        log = (tmp_path / "runs" / f"{name}_0" / "timings.jsonl").read_text().splitlines()
        stages = [json.loads(row)["stage"] for row in log]
        assert stages == (["meta"] if name == "reptile" else ["population", "meta"])
        seconds[name] = sum(json.loads(row)["seconds"] for row in log)
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    told = {r["variant"]: float(r["value"]) for r in rows if r["quantity"] == "training_seconds"}
    assert told["one step"] == pytest.approx(seconds["one step"])
    assert told["reptile"] > seconds["reptile"]
    wide = {"wide": {"model": {"lstm_dim": 5}}, "mine": {}}
    made = variants(experiment(tmp_path / "data", wide))
    names = {compare_module._shared(tmp_path, made[name], "population") for name in wide}
    assert len(names) == 2
    assert "| reptile | 1 |" in text and "adapted − wrong_listener" in text


@pytest.mark.parametrize("place", ["shared", "shared/population"])
def test_a_file_in_place_of_the_shared_models_is_reported_before_training(
    tmp_path, place, monkeypatch
):
    monkeypatch.setattr(
        compare_module, "_shared", lambda workdir, *_: workdir / "shared/population"
    )
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    chosen = experiment(tmp_path / "data", {"mine": {"inner": {"steps": 2}}})
    with pytest.raises(UserError, match=rf"{place} is not a folder.*; delete it, and run"):
        compare(chosen, tmp_path)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


def test_a_shared_model_that_cannot_be_read_is_reported_before_training(tmp_path, monkeypatch):
    shared = tmp_path / "shared" / "population"
    monkeypatch.setattr(compare_module, "_shared", lambda *_: shared)
    shared.mkdir(parents=True)
    (shared / "4").symlink_to("nowhere")
    chosen = experiment(tmp_path / "data", {"mine": {"inner": {"steps": 2}}})
    sentence = rf"{shared} cannot be copied to .*No such file.*; fix .*, or delete {shared} to"
    with pytest.raises(UserError, match=sentence):
        compare(chosen, tmp_path)
    assert not (tmp_path / "data").exists()
