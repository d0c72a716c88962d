"""Training end to end: a tiny run, its files, resuming, and mistakes on the command line."""

import dataclasses
import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import engine, estimator
from dsaml_jax.commands.evaluate import eval_sets, evaluate
from dsaml_jax.commands.study import study_checkpoint
from dsaml_jax.commands.train import train
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.methods import METHOD_ORDER
from dsaml_jax.preparation.songs import prepared_songs
from dsaml_jax.reports.conclusion import conclusion
from dsaml_jax.reports.tables import results_table
from dsaml_jax.training.stage_log import StageLog
from dsaml_jax.training.stages import initial_meta_state, restore
from dsaml_jax.training.stages import train as train_stages
from dsaml_jax.training.step import make_meta_step
from tests import tiny
from tests.conftest import CACHE

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("prepared"))


def experiment(prepared, **changes):
    config = tiny.get_config()
    config.data.prepared = prepared
    if "inner.estimator" in changes:
        config.inner.estimator = changes.pop("inner.estimator")
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared):
    """Returns the workdir and results of a finished tiny run."""
    tiny_experiment = experiment(prepared)
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    workdir = open_workdir(folder, tiny_experiment, fresh=True)
    return workdir, train(tiny_experiment, workdir)["cross_song"]


def test_the_saved_scaling_reproduces_the_training_embeddings(finished, prepared):
    tiny_experiment = experiment(prepared)
    songs = load_corpora(tiny_experiment)["train"]
    prepared = prepared_songs(tiny_experiment.data, tiny_experiment.audio)
    computed = prepared.features[songs.song_ids[1]].embeddings[0]
    with np.load(finished[0] / "embedding_scaling.npz") as scaling:
        scaled = (computed - scaling["mean"]) / scaling["deviation"]
    np.testing.assert_allclose(scaled, songs.tables.embedding[1], atol=1e-6)
    assert np.ptp(scaled) > 0.1


def test_results_have_every_row_and_are_finite(finished):
    workdir, _ = finished
    results = json.loads((workdir / "results.json").read_text())
    assert set(results["rows"]) == set(METHOD_ORDER)
    metrics = {f"{m}{d}" for m in ("ccc", "pcc", "rmse") for d in ("", "_arousal", "_valence")}
    for row, values in results["rows"].items():
        assert set(values) == metrics
        assert all(math.isfinite(value) for value in values.values()), row
    assert set(results["differences"]) == set(METHOD_ORDER) - {"adapted"}
    for name, difference in results["differences"].items():
        for metric, interval in difference.items():
            assert set(interval) == {"mean", "low", "high"}
            expected = results["rows"]["adapted"][metric] - results["rows"][name][metric]
            assert interval["mean"] == pytest.approx(expected, abs=1e-9)
            assert interval["low"] <= interval["mean"] <= interval["high"]
    assert results["rows"]["constant"]["ccc"] == pytest.approx(0, abs=1e-6)
    assert results["headroom"]["baseline"] in results["widening"]["validation_ccc"]
    assert results["control"]["episodes"] >= 3
    for levels in results["cue_decoding"].values():
        assert set(levels) == {"song", "within"}
        assert all(r_squared <= 1 for scores in levels.values() for r_squared in scores.values())
    assert set(results["cue_decoding"]) == {"inputs", "population", "meta"}


def test_the_workdir_documents_the_run(finished):
    workdir, results = finished
    assert json.loads((workdir / "config.json").read_text())["model"]["dim"] == 8
    assert json.loads((workdir / "versions.json").read_text())["jax"] == jax.__version__
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for stage in ("population", "meta"):
        steps = [x["step"] for x in lines if x["stage"] == stage and "train/loss" in x]
        assert steps == [1, 2, 3, 4]
        validated = [
            x["step"] for x in lines if x["stage"] == stage and "validation/selection" in x
        ]
        assert validated == [0, 2, 4]
    for name in ("listeners", "learning_population", "learning_meta", "inner_loop"):
        assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert list((workdir / "tensorboard").glob("events.*"))
    text = (workdir / "results.md").read_text()
    assert results_table(results, METHOD_ORDER) in text and conclusion(results) in text
    share = results.headroom.share.mean
    assert f"{share:z.1%}" in conclusion(results)


STOP_WHILE_EVALUATING = """
import os, signal
from dsaml_jax import cli
from dsaml_jax.commands import evaluate
predict = evaluate.personal_methods
def stopped(*arguments, **options):
    print("evaluating")
    os.kill(os.getpid(), signal.SIGTERM)
    predict(*arguments, **options)
    print("evaluated")
evaluate.personal_methods = stopped
cli.main()
"""


def test_a_run_stopped_while_it_evaluates_gives_the_same_results_when_restarted(
    finished, prepared, tmp_path, caplog
):
    whole, _ = finished
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "results.json").unlink()
    flags = "--config=tests/tiny.py", f"--config.data.prepared={prepared}", f"--workdir={workdir}"
    ran = subprocess.run(
        [sys.executable, "-c", STOP_WHILE_EVALUATING, *flags, f"--compile_cache={CACHE}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (75, "evaluating\n"), ran.stderr
    assert "stopped by SIGTERM; finished work is kept: run the same command" in ran.stderr
    assert "Traceback" not in ran.stderr and not (workdir / "results.json").exists()
    with caplog.at_level("INFO", "dsaml_jax"):
        train(experiment(prepared), workdir, profile_steps=1)
    assert (workdir / "results.json").read_text() == (whole / "results.json").read_text()
    # Both stages are finished: no step was taken, so there was none to profile.
    for stage in ("population", "meta"):
        assert f"{stage}: resuming at step 4 of 4" in caplog.text
        assert f"nothing was left to profile in {workdir / 'profile' / stage}" in caplog.text


def test_the_gain_by_number_of_songs_can_be_added_after_training(finished, prepared, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    evaluate(experiment(prepared, **{"evaluation.songs_curve": (2, 1)}), workdir)
    content = json.loads((workdir / "results.json").read_text())
    curve = content["songs_curve"]
    # Three annotators rated three songs or more: one query song each beyond the two of the support.
    assert curve["songs"] == [1, 2] and curve["annotators"] == 3 <= curve["sequences"]
    for name in ("adapted", "ideal", "share"):
        assert len(curve[name]) == 2
    gains = zip(curve["adapted"], curve["ideal"], curve["share"], strict=True)
    for adapted, ideal, share in gains:
        if share["mean"] is not None:
            assert share["mean"] == pytest.approx(adapted["mean"] / ideal["mean"])
    assert curve["adapted"][0]["mean"] != curve["adapted"][1]["mean"]
    assert (workdir / "figures" / "songs_curve.png").read_bytes().startswith(b"\x89PNG")
    text = (workdir / "results.md").read_text()
    assert "| songs |" in text and "ideal_adapted − ideal_population, CCC" in text
    assert content["rows"] == json.loads((finished[0] / "results.json").read_text())["rows"]


def test_more_songs_than_anyone_rated_are_refused_before_training(prepared):
    chosen = experiment(prepared, **{"evaluation.songs_curve": (1, 4)})
    with pytest.raises(UserError, match=r"songs_curve has 4, but 0 annotators rated more songs"):
        eval_sets(chosen, load_corpora(chosen)["test"])


def test_meta_gradients_are_diagnosed_during_training(finished):
    workdir, _ = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    diagnosed = [line for line in lines if "diagnostics/cosine/all" in line]
    assert [(line["stage"], line["step"]) for line in diagnosed] == [
        ("meta", 0),
        ("meta", 2),
        ("meta", 4),
    ]
    for line in diagnosed:
        assert -1 <= line["diagnostics/cosine/predictor"] < 1
        assert line["diagnostics/share/all"] > 0
        assert line["diagnostics/eigenvalue_max/1"] > line["diagnostics/eigenvalue_min/1"]
        assert line["diagnostics/noise/spread"] > 0


def test_a_study_compares_estimators_at_a_checkpoint(finished, prepared):
    workdir, _ = finished
    text = study_checkpoint(experiment(prepared), workdir)
    written = json.loads((workdir / "study.json").read_text())
    assert (workdir / "study.md").read_text() == text
    assert (workdir / "figures" / "study.png").read_bytes().startswith(b"\x89PNG")
    cosines = {name: e["cosine"]["all"] for name, e in written["estimators"].items()}
    for name in ("reverse", "remat", "mixed"):
        assert cosines.pop(f"exact, {name}") == pytest.approx(1, abs=1e-6)
    assert set(cosines) == {"first order", "truncated, 1 step"}
    assert all(cosine < 1 - 1e-9 for cosine in cosines.values())
    assert all(e["cost"]["temp_bytes"] > 0 for e in written["estimators"].values())
    with pytest.raises(UserError, match=r"tasks\.meta_batch is 1"):
        study_checkpoint(experiment(prepared, **{"tasks.meta_batch": 1}), workdir)


def test_a_stopped_run_resumes_to_the_same_weights(finished, prepared, tmp_path, monkeypatch):
    """A run stopped in the second stage after step 2 and restarted equals an uninterrupted one."""
    whole = experiment(prepared, **{"diagnostics.every": 0})
    workdir = open_workdir(tmp_path / "run", whole, fresh=True)
    write, seen = StageLog.scalars, []

    def stop_at_the_third(log, kind, step, values):
        seen.append("support_loss_first" in values)
        if sum(seen) == 3:
            raise KeyboardInterrupt
        write(log, kind, step, values)

    monkeypatch.setattr(StageLog, "scalars", stop_at_the_third)
    corpora = load_corpora(whole)
    with pytest.raises(KeyboardInterrupt):
        train_stages(whole, corpora, workdir)
    monkeypatch.setattr(StageLog, "scalars", write)
    train_stages(whole, corpora, workdir)
    theirs, ours = restore(experiment(prepared), finished[0]), restore(whole, workdir)
    jax.tree.map(
        np.testing.assert_array_equal,
        (theirs.population, theirs.meta),
        (ours.population, ours.meta),
    )


def test_the_workdir_of_another_experiment_is_rejected_and_untouched(finished, prepared):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    other = experiment(prepared, **{"inner.steps": 7, "model.dropout": 0.25})
    with pytest.raises(UserError, match=r"inner\.steps was 2, is 7; model\.dropout .*--workdir"):
        open_workdir(workdir, other, fresh=True)
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def test_folders_without_a_run_are_rejected(tmp_path, prepared):
    tiny_experiment = experiment(prepared)
    with pytest.raises(UserError, match="train one"):
        open_workdir(tmp_path / "new", tiny_experiment, fresh=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds no run"):
        open_workdir(tmp_path, tiny_experiment, fresh=True)
    with pytest.raises(UserError, match="holds no run"):
        open_workdir(tmp_path / "thesis.tex", tiny_experiment, fresh=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inner.adapt": "predictor, transformr"}, r"inner\.adapt: .*'transformr' .*'transformer'"),
        ({"meta.train": "predictor, decision"}, r"^meta\.train: .*'decision' matches none"),
        ({"population.train": "decision"}, r"^population\.train: .*'decision' matches none"),
        (
            {"listeners.steps": 1, "listeners.train": "decision"},
            r"^listeners\.train: .*'decision' matches none",
        ),
    ],
)
def test_unknown_weights_are_rejected_before_data_are_prepared(tmp_path, changes, sentence):
    mistaken = experiment(str(tmp_path / "prepared"), **changes)
    workdir = open_workdir(tmp_path / "run", mistaken, fresh=True)
    with pytest.raises(UserError, match=sentence):
        train(mistaken, workdir)
    assert not (tmp_path / "prepared").exists()


FIXED = {"inner.rates": "fixed", "inner.rates_learning_rate": 0.0}


def exact(**fields):
    return {"inner.estimator": estimator("second_order", **fields)}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inner.rates": "per_tenser"}, "did you mean 'per_tensor'"),
        ({"inner.rates": "fixed"}, "choose what is learned"),
        (exact(multi_step_until=2.0), "expected at least 0 and at most 1"),
        ({"inner.adapt": " , "}, "expected all, head"),
        (exact(engine=engine("backward")), "expected one of reverse, remat, mixed"),
        ({"inner.estimator": estimator("truncated", last_steps=3)}, "1 to inner.steps = 2"),
        (exact(last_steps=1), "'second_order' has no such field; it has engine, multi_step_until"),
        ({"inner.estimator": estimator("annealed", anneal_at=0.0)}, "expected above 0 and below 1"),
        ({"inner.estimator": estimator("annealed")}, "lacks anneal_at"),
        (exact(anneal_at=0.5), "'second_order' has no such field"),
        (
            {"inner.estimator": estimator("first_order", engine=engine("remat", chunk=2))},
            "'first_order' has no such field; it has multi_step_until",
        ),
        ({"inner.estimator": estimator("implicit", proximal=1.0)}, "no gradient for learned"),
        ({"inner.estimator": estimator("implicit"), **FIXED}, "lacks proximal"),
        ({"inner.estimator": estimator("implicit", proximal=0.0), **FIXED}, "expected above 0"),
        (
            {"inner.estimator": estimator("reptile", multi_step_until=0.5), **FIXED},
            "'reptile' has no such field; it has none",
        ),
    ],
)
def test_invalid_inner_loop_fields_are_rejected_in_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        experiment("nowhere", **changes)


def test_steps_that_draw_a_song_with_nan_are_skipped_until_the_run_ends(prepared, tmp_path, caplog):
    """Steps are skipped and name the annotator; the second skip exceeds the limit of 1."""
    once = experiment(prepared, **{"population.skip_at_most": 1})
    corpora = load_corpora(once)
    tables = corpora["train"].tables
    with_nan = tables._replace(log_mel=tables.log_mel.at[3, 5, 0, 0].set(jnp.nan))
    corrupted = corpora | {"train": dataclasses.replace(corpora["train"], tables=with_nan)}
    sentence = (
        r"population: Step \d: the .* of task \d .*\(annotator \w+.*\) is not finite, "
        r"first in .*"
    )
    over = r"population\.skip_at_most = 1; the checkpoints before are kept\.$"
    with pytest.raises(UserError, match=f"^{sentence}{over}"):
        train_stages(once, corrupted, open_workdir(tmp_path / "run", once, fresh=True))
    assert re.search(rf"{sentence}The meta-step is skipped \(1 so far\)", caplog.text)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    counts = [line["train/skipped"] for line in lines if "train/skipped" in line]
    assert counts == sorted(counts) and counts[-1] == 2


def test_a_skipped_meta_step_changes_nothing_and_the_next_is_unaffected(prepared):
    tiny_experiment = experiment(prepared)
    tables = load_corpora(tiny_experiment)["train"].tables
    start = initial_meta_state(tiny_experiment)
    stage = tiny_experiment.meta
    step = make_meta_step(
        tiny_experiment.model,
        tiny_experiment.tasks,
        tiny_experiment.inner,
        stage.build_optimizer(tiny_experiment.inner),
        stage.steps,
    )
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    before = jax.device_get(start)
    bad, metrics = step(start, tables._replace(log_mel=tables.log_mel * jnp.nan), KEY)
    same(bad, before._replace(step=1, skipped=1))
    assert not np.isfinite(metrics.scalars["loss"])
    # The next step draws the tasks that it would have drawn, and starts from the old weights.
    fresh = jax.tree.map(jnp.asarray, before._replace(step=jnp.ones((), jnp.int32)))
    theirs, _ = step(fresh, tables, KEY)
    ours, metrics = step(bad, tables, KEY)
    same(ours, theirs._replace(skipped=1))
    assert int(metrics.scalars["skipped"]) == 1
    moved = jax.tree.map(lambda x, y: np.any(x != y), ours.weights.params, before.weights.params)
    assert any(jax.tree.leaves(moved))


def test_support_that_leaves_no_query_songs_is_rejected(tmp_path, prepared):
    greedy = experiment(prepared, **{"tasks.support": 3})
    workdir = open_workdir(tmp_path / "run", greedy, fresh=True)
    with pytest.raises(UserError, match=r"tasks\.support is 3"):
        train(greedy, workdir)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--config is missing"),
        (["--config=configs/nope.py"], "there is no file configs/nope.py"),
        (["--config=dmeo"], "there is no config dmeo; did you mean 'demo'?"),
        (["--config=configs/demo.py", "--config.inner.stesp=3"], "did you mean 'steps'?"),
        (["--config=configs/demo.py", "--config.inner.steps=many"], "--config.inner.steps=many"),
        (["--config=configs/demo.py", "--workdri=x"], "Did you mean: workdir"),
        (["--config=configs/demo.py", "--mode=tain"], "train|evaluate|study"),
        (["--config=configs/demo.py", "--config.model.normalization=bach"], "'batch'"),
        (["--config=configs/demo.py", "--config.inner.optimizer.name=sdg"], "did you mean 'sgd'?"),
        (["--config=configs/demo.py", "--mode=evaluate"], "train one with --mode=train"),
    ],
)
def test_command_line_mistakes_are_reported_in_one_sentence(tmp_path, arguments, sentence):
    ran = subprocess.run(
        [
            sys.executable,
            "launch.py",
            *arguments,
            *([f"--workdir={tmp_path / 'run'}"] if arguments else []),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1 and "Traceback" not in ran.stderr
    assert not (tmp_path / "run").exists()
