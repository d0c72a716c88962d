"""Checkpoints of another run, with other arrays, or with damage in any byte of any file."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.meta import MetaParams
from dsaml_jax.model.weights import Weights
from dsaml_jax.training import checkpoints as module
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.state import TrainState

RUN = {"config": {"seed": 0, "meta": {"steps": 4}}, "data": {"train": {"songs": 3}}}


def state_at(step, dtype=jnp.float32):
    count = jnp.array(step, jnp.int32)
    drawn = jax.random.normal(jax.random.key(step), (64,), dtype)
    return TrainState(count, Weights(MetaParams({"w": drawn}, {}), {}), (), jnp.zeros_like(count))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Step 1 with the best validation, step 2 with a worse one, step 3 with none."""
    folder = tmp_path_factory.mktemp("saved") / "meta"
    with contextlib.closing(Checkpoints(folder, RUN)) as checkpoints:
        checkpoints.save(state_at(1), {"selection": 0.75})
        checkpoints.save(state_at(2), {"selection": 0.5})
        checkpoints.save(state_at(3))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "meta")


def read(folder, run=RUN):
    """Returns the last and the best checkpoint."""
    with contextlib.closing(Checkpoints(folder, run)) as checkpoints:
        last, best = checkpoints.last(state_at(0)), checkpoints.best(state_at(0))
    assert last is not None and best is not None
    return last, best


def steps(folder, run=RUN):
    found = read(folder, run)
    for each in found:  # what is read is what was saved, whatever was damaged
        expected = state_at(int(each.state.step))
        jax.tree.map(np.testing.assert_array_equal, each.state, expected)
    return tuple(int(each.state.step) for each in found)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x15
    path.write_bytes(bytes(content))


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads
def test_one_wrong_byte_anywhere_is_never_read_silently(saved, tmp_path, caplog):
    """Either it does not matter (then the values are right), or the checkpoint is set aside."""
    set_aside = 0
    for number, original in enumerate(files(saved / "3")):
        size = original.stat().st_size
        for position in [4 * size // 5] if size else []:
            copy = shutil.copytree(saved, tmp_path / f"{number}_{position}")
            flip(copy / original.relative_to(saved), position)
            last, best = steps(copy)
            assert best == 1 and last in (2, 3)
            assert (last == 2) == ("3.damaged" in names(copy))
            set_aside += last == 2
            shutil.rmtree(copy)
    assert set_aside > 0 and caplog.text.count("3 is damaged") == set_aside


def test_wrong_values_that_the_format_misses_are_detected(folder, monkeypatch, caplog):
    """The hash is of what is restored: here step 3 holds the arrays of step 2."""
    shutil.rmtree(folder / "3" / "default")
    shutil.copytree(folder / "2" / "default", folder / "3" / "default")
    assert steps(folder) == (2, 1)
    assert "its arrays are not those that were saved" in caplog.text


def test_a_checkpoint_under_another_steps_name_is_set_aside(folder, caplog):
    """Its step would be believed, and later ones never saved."""
    shutil.copytree(folder / "2", folder / "99")
    assert steps(folder) == (3, 1) and "99.damaged" in names(folder)
    assert "it is the checkpoint of step 2, under another name" in caplog.text


@pytest.mark.parametrize(
    "content", ["{}", "null", "[]", "", '{"selection": NaN}', '{"selection": 0.25}']
)
def test_metrics_that_have_changed_set_their_checkpoint_aside(folder, content):
    """A lower number would otherwise make another checkpoint the best, silently."""
    (folder / "1" / "metrics" / "metrics").write_text(content)
    assert steps(folder) == (3, 2) and "1.damaged" in names(folder)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("4", lambda path: path.mkdir()),  # empty
        ("4", lambda path: path.write_text("a file")),
        ("4", lambda path: (path / "default").mkdir(parents=True)),
        ("04", lambda path: shutil.copytree(path.parent / "3", path)),
        ("3", lambda path: (path / "default" / "_sharding").write_bytes(b"")),
    ],
)
def test_an_incomplete_checkpoint_is_set_aside(folder, name, damage):
    damage(folder / name)
    last, best = steps(folder)
    assert best == 1 and last == 3
    assert name == "3" or f"{name}.damaged" in names(folder)


def test_other_files_are_left_alone(folder):
    for name in ("lost+found", "3 (copy)", "2.damaged"):
        (folder / name).mkdir()
    (folder / "README").write_text("mine")
    assert steps(folder) == (3, 1)
    assert {"lost+found", "3 (copy)", "2.damaged", "README"} <= set(names(folder))
    (folder / "2" / "_CHECKPOINT_METADATA").unlink()
    assert steps(folder) == (3, 1) and "2.damaged1" in names(folder)


def test_a_single_empty_checkpoint_is_rejected_and_kept(tmp_path):
    (tmp_path / "4").mkdir()
    with pytest.raises(UserError, match=r"none of 1 checkpoints can be read \(step 4: "):
        Checkpoints(tmp_path, RUN)
    assert names(tmp_path) == ["4"]


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"config": {"seed": 1, "meta": {"steps": 4}}}, r"another config \(seed was 0, is 1\)"),
        ({"config": {"seed": 0, "meta": {"steps": 5}}}, r"\(meta\.steps was 4, is 5\)"),
        ({"data": {"train": {"songs": 4}}}, r"other data \(train\.songs was 3, is 4\)"),
    ],
)
def test_another_runs_checkpoints_are_refused(folder, tmp_path, run, sentence):
    (tmp_path / "linked").symlink_to(folder)
    for path in (folder, tmp_path / "linked"):
        before = names(path)
        with pytest.raises(UserError, match=sentence):
            read(path, RUN | run)
        assert names(path) == before


def test_a_checkpoint_without_a_config_is_refused(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, {})) as checkpoints:
        checkpoints.save(state_at(1), {"selection": 1.0})
    with pytest.raises(UserError, match=r"another config \(config is not recorded"):
        read(tmp_path)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_another_dtype_is_refused_and_not_cast(folder, dtype):
    with contextlib.closing(Checkpoints(folder, RUN)) as checkpoints:
        for read_one in (checkpoints.last, checkpoints.best):
            with pytest.raises(UserError, match=r"params\.w is float32\[64\], expected b?float16"):
                read_one(state_at(0, dtype))
    assert "3.damaged" not in names(folder)


def test_a_narrow_dtype_is_saved_and_restored(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, RUN)) as checkpoints:
        checkpoints.save(state_at(1, jnp.bfloat16), {"selection": 1.0})
        last = checkpoints.last(state_at(0, jnp.bfloat16))
    assert last is not None
    restored = last.state
    assert restored.weights.params["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        restored.weights.params["w"], state_at(1, jnp.bfloat16).weights.params["w"]
    )


def test_an_interrupted_deletion_leaves_no_partial_checkpoint(folder, monkeypatch, caplog):
    """The last is saved anew with its validation; the run dies while the old one is deleted."""

    def die(*_, **__):
        raise KeyboardInterrupt

    checkpoints = Checkpoints(folder, RUN)
    monkeypatch.setattr(module.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(state_at(3), {"selection": 0.9})
    monkeypatch.undo()
    assert names(folder / ".deleted") == ["3"]
    assert steps(folder) == (2, 1)
    assert "damaged" not in caplog.text and ".deleted" not in names(folder)


def test_a_removed_folder_ends_the_run_with_one_sentence(folder):
    checkpoints = Checkpoints(folder, RUN)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="was removed while the run was writing there"):
        checkpoints.save(state_at(4))


def test_a_record_with_an_edited_number_is_damaged(folder):
    """A config edited to match is no better than another config."""
    path = folder / "3" / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text())
    content["custom_metadata"]["run"]["config"]["seed"] = 7
    path.write_text(json.dumps(content))
    assert steps(folder) == (2, 1) and "3.damaged" in names(folder)
