"""Interrupted runs resume to the same weights, and report what stopped them in one sentence."""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsaml_jax.commands.workdir import lock_workdir, open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.errors import Interrupted, UserError
from dsaml_jax.meta import MetaParams, TaskResult
from dsaml_jax.meta.finite import finiteness
from dsaml_jax.model.weights import Weights
from dsaml_jax.runtime import files
from dsaml_jax.runtime.signals import defer_signals
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.loop import StageFunctions, fit
from dsaml_jax.training.metric_writer import MetricWriter, stage_seconds
from dsaml_jax.training.schedule import Schedule
from dsaml_jax.training.stage_log import StageLog, StepMetrics
from dsaml_jax.training.state import TrainState
from tests import tiny

KEY = jax.random.key(0)
SCHEDULE = Schedule(steps=10, validate_every=4, checkpoint_every=3, diagnose_every=5)


def weights_of(w):
    return Weights(MetaParams({"w": w}, {}), {})


def state_at(step, size=64):
    count = jnp.array(step, jnp.int32)
    return TrainState(count, weights_of(jnp.zeros(size)), (), jnp.zeros_like(count))


@jax.jit
def walk(state, tables, key):
    """Takes a random-walk step; with `tables`, the gradients of steps 8 and 9 are not finite."""
    step = state.step + 1
    bad = tables is not None and ((step == 8) | (step == 9))
    drawn = jax.random.normal(jax.random.fold_in(key, step), (2, *state.weights.params["w"].shape))
    gradient = jnp.where(bad, jnp.nan, drawn)
    result = TaskResult(jnp.ones(2), jnp.ones((2, 1)), None, {})
    finite = finiteness(result, MetaParams({"predictor": gradient}, {}))
    skipped = state.skipped + jnp.isnan(gradient).any()
    norm = optax.global_norm(gradient)
    scalars = {"loss": norm, "score": norm, "gradient_norm": norm, "skipped": skipped}
    moved = jnp.where(bad, state.weights.params["w"], state.weights.params["w"] + gradient.mean(0))
    state = state._replace(step=step, weights=weights_of(moved), skipped=skipped)
    return state, StepMetrics(scalars, finite)


class Run:
    """`fit` on `walk` in a folder, with hooks at chosen steps and validations.

    Attributes:
      at: {("step" or "validation", step): function called there}.
    """

    per_call = 1

    def __init__(self, folder, skip_at_most=2, tables=None, size=64):
        self.folder, self.tables, self.size = folder, tables, size
        self.skip_at_most = skip_at_most
        self.validated, self.diagnosed, self.calls, self.at = [], [], [], {}

    def validate(self, state):
        step = int(state.step)
        self.validated.append(step)
        self.at.get(("validation", step), lambda: None)()
        return {"selection": -abs(step - 4)}  # step 4 is the best

    def diagnose(self, state):
        self.diagnosed.append(int(state.step))
        return {"step": float(state.step)}

    def advance(self, state, first, count):
        assert int(state.step) == first
        rows = []
        for step in range(first + 1, first + count + 1):
            self.at.get(("step", step), lambda: None)()
            state, metrics = walk(state, self.tables, KEY)
            rows.append(metrics)
        self.calls.append(count)
        return state, rows[0] if count == 1 else jax.tree.map(lambda *x: jnp.stack(x), *rows)

    def __call__(self):
        checkpoints = Checkpoints(self.folder / "checkpoints", {"data": {"train": {"songs": 3}}})
        with contextlib.closing(checkpoints), MetricWriter(self.folder) as metric_writer:
            fitted = fit(
                StageFunctions(self.advance, self.validate, self.diagnose),
                dataclasses.replace(SCHEDULE, steps_per_call=self.per_call),
                state_at(0, self.size),
                checkpoints,
                StageLog("meta", metric_writer, lambda step, finite: None, self.skip_at_most),
            )
            return fitted, checkpoints.last(state_at(0, self.size)).state

    def log(self):
        with MetricWriter(self.folder) as metric_writer:
            return metric_writer.read("meta")


@pytest.mark.parametrize("per_call", [2, 3])
def test_calls_of_several_steps_end_at_the_next_due_action(whole, tmp_path, per_call):
    """Ten steps that validate every 4, save every 3 and diagnose every 5 give the same log."""
    run = Run(tmp_path, tables=None)
    run.per_call = per_call
    fitted, last = run()
    theirs, their_last, log = whole
    np.testing.assert_array_equal(last.weights.params["w"], their_last.weights.params["w"])
    np.testing.assert_array_equal(
        fitted.state.weights.params["w"], theirs.state.weights.params["w"]
    )
    assert run.log() == log
    calls = {2: [2, 1, 1, 1, 1, 2, 1, 1], 3: [3, 1, 1, 1, 1, 1, 1, 1]}
    assert run.calls == calls[per_call]


def by_signal(number=signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the result, last state and log of an uninterrupted run."""
    run = Run(tmp_path_factory.mktemp("whole"))
    return *run(), run.log()


def test_the_best_checkpoint_can_be_read_while_saves_are_pending(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        for step in range(3):
            checkpoints.save(state_at(step, size=2**22), {"selection": step})
        best = checkpoints.best(state_at(0, size=2**22))
    assert (int(best.state.step), best.metrics) == (2, {"selection": 2})


def same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_best_and_last_two_checkpoints_are_kept(whole, tmp_path):
    run = Run(tmp_path)
    fitted, last = run()
    assert run.validated == [0, 4, 8, 10] and run.diagnosed == [0, 5, 10]
    assert int(fitted.state.step) == 4 and fitted.metrics == {"selection": 0}
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [4, 9, 10]
    same((fitted.state, last), (whole[0].state, whole[1]))


@pytest.mark.parametrize(
    ("moment", "stopped_after"),
    [
        (("step", 2), 2),  # between checkpoints
        (("step", 4), 4),  # a validation is due: the resumed run catches up on it
        (("step", 5), 5),  # the same for a diagnosis
        (("step", 10), 10),  # at the end
        (("validation", 0), 0),
        (("validation", 8), 9),
        (("validation", 10), 10),
    ],
)
def test_a_signal_stops_after_the_step_and_the_run_resumes_to_the_same_weights(
    whole, tmp_path, moment, stopped_after
):
    before = signal.getsignal(signal.SIGTERM)
    run = Run(tmp_path)
    run.at[moment] = by_signal()
    with pytest.raises(Interrupted, match=f"meta: stopped by SIGTERM after step {stopped_after} "):
        run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "checkpoints" / str(stopped_after)).is_dir()
    again = Run(tmp_path)
    fitted, last = again()
    assert sorted({*run.validated, *again.validated}) == [0, 4, 8, 10]
    assert len(run.validated) + len(again.validated) == 4
    same((fitted.state, fitted.metrics, last), (whole[0].state, whole[0].metrics, whole[1]))
    assert run.log() == whole[2]


def test_ctrl_c_stops_after_the_step_and_a_second_one_immediately(tmp_path):
    run = Run(tmp_path / "once")
    run.folder.mkdir()
    run.at["step", 3] = by_signal(signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGINT after step 3"):
        run()
    with pytest.raises(KeyboardInterrupt) as caught, defer_signals() as asked:
        by_signal(signal.SIGINT)()
        assert asked() == "SIGINT"
        by_signal(signal.SIGINT)()
    assert not isinstance(caught.value, Interrupted)


def test_outside_training_a_signal_ends_the_process_even_if_exceptions_are_swallowed():
    """A callback of the garbage collector, for example, prints exceptions and continues."""
    program = (
        "import gc, os, signal\n"
        "from dsaml_jax.runtime.stopping import STOPPER, wakeup\n"
        "with wakeup(STOPPER):\n"
        "    gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGTERM))\n"
        "    gc.collect()\n"
        "print('still alive')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (75, "")
    assert ran.stderr.startswith("dsaml: stopped by SIGTERM; finished work is kept")
    assert ran.stderr.count("\n") == 1


def test_the_seconds_of_a_stage_are_summed_over_its_interruptions(tmp_path):
    run = Run(tmp_path)
    run.at["step", 3] = by_signal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run()
    run()
    rows = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and rows[1]["step"] == 10
    assert stage_seconds(tmp_path, "meta") == pytest.approx(sum(row["seconds"] for row in rows))
    assert stage_seconds(tmp_path, "population") == 0


def test_non_finite_steps_are_skipped_counted_and_logged(tmp_path, caplog):
    _, last = Run(tmp_path, tables=True)()
    assert int(last.skipped) == 2
    rows = {row["step"]: row for row in Run(tmp_path).log()}
    assert [rows[step]["train/skipped"] for step in (7, 8, 9, 10)] == [0, 1, 2, 2]
    assert "train/loss" not in rows[8] and "train/loss" in rows[10]
    assert "Step 8: the meta-gradient overflows. The meta-step is skipped (1 so far)" in caplog.text


@pytest.mark.parametrize(("at_most", "at"), [(1, 9), (0, 8)])
def test_one_skipped_step_too_many_ends_the_run_and_keeps_the_checkpoints(tmp_path, at_most, at):
    sentence = rf"Step {at}: .*: {at - 7}, more than meta\.skip_at_most = {at_most}; the"
    for _ in range(2):  # a restarted run stops at the same step
        with pytest.raises(UserError, match=sentence):
            Run(tmp_path, at_most, tables=True)()
        with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
            assert np.isfinite(checkpoints.last(state_at(0)).state.weights.params["w"]).all()


def damage(folder, how):
    """Damages a checkpoint as a power cut does: its files are empty, truncated or missing."""
    for path in (p for p in sorted(folder.rglob("*")) if p.is_file()):
        if how == "empty":
            path.write_bytes(b"")
        elif how == "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif how == "metrics" and path.parent.name == "metrics":
            path.write_text('{"selec')
        elif how == "gone" and path.parent.name != "metrics":
            path.unlink()


@pytest.mark.parametrize("how", ["empty", "cut", "gone", "metrics"])
def test_a_damaged_latest_checkpoint_is_set_aside_and_the_previous_one_used(
    whole, tmp_path, how, caplog
):
    run = Run(tmp_path)
    run.at["validation", 8] = by_signal(signal.SIGINT)
    run.at["step", 9] = by_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run()
    latest = tmp_path / "checkpoints" / "8"
    assert latest.is_dir() and (tmp_path / "checkpoints" / "6").is_dir()
    damage(latest, how)
    fitted, last = Run(tmp_path)()
    assert f"{latest} is damaged" in caplog.text and "set aside as 8.damaged" in caplog.text
    assert (tmp_path / "checkpoints" / "8.damaged").is_dir()
    same((fitted.state, last), (whole[0].state, whole[1]))


def test_checkpoints_are_left_alone_if_none_can_be_read(tmp_path):
    Run(tmp_path)()
    folder = tmp_path / "checkpoints"
    for checkpoint in folder.iterdir():
        damage(checkpoint, "gone")
    with pytest.raises(UserError, match=r"none of 3 checkpoints can be read.*restart this stage"):
        Run(tmp_path)()
    assert sorted(path.name for path in folder.iterdir()) == ["10", "4", "9"]


def test_remains_of_an_interrupted_save_are_removed(whole, tmp_path):
    Run(tmp_path)()
    left = tmp_path / "checkpoints" / "11.orbax-checkpoint-tmp"
    left.mkdir()
    (tmp_path / "metrics.jsonl").open("a").write('{"stage": "meta", "st')
    fitted, last = Run(tmp_path)()
    same((fitted.state, last), (whole[0].state, whole[1]))
    assert not left.exists() and Run(tmp_path).log() == whole[2]


def test_checkpoints_of_other_data_are_rejected_with_the_difference(tmp_path):
    Run(tmp_path)()
    other = Checkpoints(tmp_path / "checkpoints", {"data": {"train": {"songs": 4}}})
    for read in (other.last, other.best):
        with pytest.raises(UserError, match=r"other data \(train\.songs was 3, is 4\)"):
            read(state_at(0))


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "results.json"
    files.write_json(path, {"ccc": 1})
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(UserError, match=r"results\.json cannot be written \(No space left"):
        files.write_json(path, {"ccc": 2})
    assert json.loads(path.read_text()) == {"ccc": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.fixture
def disk(tmp_path):
    """Returns disk(options), which mounts or remounts a small file system and returns its path."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a file system is not allowed here: {done.stderr.strip()}")
        return folder

    yield mount
    while os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads
def test_a_full_disk_ends_the_run_in_one_sentence_and_loses_no_checkpoint(disk, tmp_path):
    size = 60_000  # 240 kB per checkpoint; three plus the one being written need 960 kB
    folder = disk("size=700k")
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); finished"):
        Run(folder, size=size)()
    kept = {int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept
    disk("remount,size=4m")
    (tmp_path / "whole").mkdir()
    again = Run(folder, size=size)
    fitted, last = again()
    assert again.validated[0] > 0
    theirs, whole = Run(tmp_path / "whole", size=size)()
    same((fitted.state, last), (theirs.state, whole))


def test_a_read_only_workdir_is_rejected_in_one_sentence(disk):
    folder = disk("size=4m")
    Run(folder)()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    disk("remount,ro")
    for write in (
        Run(folder),
        lambda: open_workdir(folder / "run", experiment(), fresh=True),
        lambda: files.write_json(folder / "results.json", {}),
    ):
        with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"):
            write()
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def experiment(**changes):
    config = tiny.get_config()
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


def test_a_workdir_accepts_one_run_at_a_time(tmp_path):
    with lock_workdir(tmp_path / "run", experiment(), fresh=True) as workdir:
        with pytest.raises(UserError, match="is being written by another run"):  # noqa: SIM117
            with lock_workdir(workdir, experiment(), fresh=False):
                pass
        left = workdir / "results1234.partial"
        left.touch()
    with lock_workdir(workdir, experiment(), fresh=False):
        assert not left.exists()


def test_workdirs_below_a_file_or_with_a_damaged_config_are_rejected(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"is a file, where a folder is needed"):
        open_workdir(tmp_path / "file" / "run", experiment(), fresh=True)
    workdir = open_workdir(tmp_path / "run", experiment(), fresh=True)
    for content, reason in (
        ('{"seed"', ""),
        ('{"seed": 0, "seed": 1}', "an object has 'seed' twice"),
    ):
        (workdir / "config.json").write_text(content)
        with pytest.raises(UserError, match=rf"config\.json is damaged \(.*{reason}"):
            open_workdir(workdir, experiment(), fresh=True)


def test_a_run_resumes_if_only_fields_without_effect_on_the_weights_changed(tmp_path):
    workdir = open_workdir(tmp_path / "run", experiment(), fresh=True)
    moved = {"data.prepared": "elsewhere", "meta.skip_at_most": 3, "evaluation.figures": 1}
    open_workdir(workdir, experiment(**moved), fresh=True)
    with pytest.raises(UserError, match=r"another experiment \(meta\.steps was 4, is 5\)"):
        open_workdir(workdir, experiment(**moved, **{"meta.steps": 5}), fresh=True)
