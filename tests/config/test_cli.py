"""The command line: bundled configs by name, overrides of single fields, and mistakes."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from dsaml_jax import cli
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.config.files import to_plain_dict
from dsaml_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def parse(*arguments):
    values = flags.FlagValues()
    cli.parse(["launch.py", *arguments], values)
    return experiment_from_config(to_plain_dict(values.config))


def test_a_config_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    expected = parse(f"--config={ROOT}/configs/demo.py")
    monkeypatch.chdir(tmp_path)
    assert parse("--config=demo") == expected
    with pytest.raises(UserError, match="no config dmeo; did you mean 'demo'"):
        parse("--config=dmeo")
    with pytest.raises(UserError, match=r"no file configs/demo\.py; did you mean 'demo'"):
        parse("--config=configs/demo.py")


def test_optional_fields_can_be_set_on_the_command_line():
    engine = "--config.inner.estimator.engine"
    inner = parse("--config=demo_paper", f"{engine}.name=mixed", f"{engine}.chunk=2").inner
    assert (inner.estimator.engine.name, inner.estimator.engine.chunk) == ("mixed", 2)
    estimator = "--config.inner.estimator"
    inner = parse(
        "--config=demo_paper", f"{estimator}.name=truncated", f"{estimator}.last_steps=2"
    ).inner
    assert (inner.estimator.name, inner.estimator.last_steps) == ("truncated", 2)
    data = parse("--config=base", "--config.data.builder.release=2019").data
    assert data.builder == {"release": 2019}
    inner = parse("--config=base", "--config.inner.optimizer.options.momentum=0.9").inner
    assert inner.optimizer.options == {"learning_rate": 5e-3, "momentum": 0.9}


def test_a_new_name_drops_the_fields_of_the_old_estimator(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import demo_paper\nfrom configs.base import engine, estimator\n"
        "def get_config():\n    config = demo_paper.get_config()\n"
        "    config.inner.estimator = estimator(\n"
        "        'truncated', last_steps=2, engine=engine('mixed'), multi_step_until=0.5)\n"
        "    return config\n"
    )
    name = "--config.inner.estimator.name"
    kept = parse(f"--config={file}", f"{name}=second_order").inner.estimator
    assert (kept.engine.name, kept.multi_step_until) == ("mixed", 0.5)
    assert parse(f"--config={file}", f"{name}=first_order").inner.estimator.multi_step_until == 0.5
    with pytest.raises(UserError, match="'first_order' has no such field"):
        parse(f"--config={file}", f"{name}=first_order", "--config.inner.estimator.last_steps=2")


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--config.inner.stesp=3", r"inner has no field 'stesp'; did you mean 'steps'\?"),
        ("--config.inr.steps=3", r"config has no field 'inr'; did you mean 'inner'\?"),
        ("--config.inner.estimator.enginee.name=mixed", "enginee is given, but 'second_order'"),
        ("--config.inner.estimator=first_order", r"--config\.inner\.estimator\.name=first_order"),
        ("--config.inner.chunk=4", r"--config\.inner\.estimator\.engine\.chunk=4"),
        ("--config.tasks.at_once=4", r"tasks\.tasks_per_device"),
        ("--config.meta.steps=many", r"--config\.meta\.steps=many"),
        ("--memory_gib=-1", "memory_gib"),
        ("--memory_gib=nan", "--memory_gib is nan; expected a finite number"),
        ("--memory_gib=inf", "memory_gib=inf: .*in the range"),
        ("--stop_within=nan", "--stop_within is nan; expected a finite number"),
        ("--heartbeat_timeout=99999999999", "heartbeat_timeout=99999999999: .*in the range"),
        ("--config.comparison.variants.a/b.steps=3", "a/b.steps: expected field names"),
        ("--config..seed=1", "expected field names joined by dots"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(argument, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        parse("--config=demo", argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = (", r"line 1: .*never closed"),
        ("x = 1", r"get_config"),
        ("def get_config():\n    return nothing", r"line 2: name 'nothing' is not defined"),
        (
            "from configs import base\ndef get_config():\n    config = base.get_config()\n"
            "    config.inner.estimator = 'annealed'\n    return config",
            r'line 4: .*write estimator\("annealed"\)',
        ),
    ],
)
def test_faulty_config_files_are_reported_in_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "faulty.py"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        parse(f"--config={file}")
    assert "\n" not in str(caught.value)


def test_the_package_runs_from_any_folder_and_names_itself_in_errors(tmp_path):
    command = [sys.executable, "-m", "dsaml_jax", "--config=demo", "--config.seed=-1"]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    assert ran.stderr == "python -m dsaml_jax: seed is -1; expected at least 0 and at most " + (
        "4294967295.\n"
    )


def test_program_name_is_how_the_program_was_started():
    assert cli.program_name("launch.py") == "launch.py"
    assert cli.program_name("/usr/bin/dsaml") == "dsaml"
    assert cli.program_name("/lib/dsaml_jax/__main__.py") == "python -m dsaml_jax"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.py", "x = 1", r"a\.py defines no function get_config; expected"),
        ("a.py", "get_config = 3", r"a\.py defines no function get_config; expected"),
        (
            "a.py",
            "def get_config():\n    pass",
            r"get_config returns NoneType; expected a ConfigDict",
        ),
        (
            "a.py",
            "def get_config():\n    return {'seed': 1}",
            "returns dict; expected a ConfigDict",
        ),
        ("a.py", "def get_config(x):\n    return x", r"a\.py: .*missing 1 required positional"),
        ("a.py", "import sys\nsys.exit()", r"a\.py exits the program"),
        ("a.json", '{"seed": 1}', r"a\.json defines no function get_config"),
        ("a.py", "x = 1\0", r"a\.py: .*null bytes"),
        (
            "a.py",
            "from ml_collections import config_dict as d\ndef get_config():\n"
            "    return d.ConfigDict({'a': {'b': d.required_placeholder(int)}})",
            r"a\.b is not set; set it with --config\.a\.b=VALUE",
        ),
        (
            "a.py",
            "from ml_collections import ConfigDict\ndef get_config():\n"
            "    return ConfigDict({'a': 1, 2: 3})",
            "field names must be strings",
        ),
        ("a.py", "def get_config():\n    return open('gone')", r"line 2: .*No such file"),
        ("a.py", "class B(BaseException): pass\ndef get_config():\n    raise B('x')", "line 3: x"),
        (
            "a.py",
            "class E(Exception):\n    def __str__(self):\n        raise RuntimeError\n"
            "def get_config():\n    raise E",
            "line 5: E",
        ),
    ],
)
def test_a_file_that_is_not_a_config_is_rejected(tmp_path, name, content, sentence):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        parse(f"--config={file}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe--x"])
def test_a_file_of_flags_that_cannot_be_read_is_rejected(tmp_path, content):
    file = tmp_path / "flags"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"^--flagfile: "):
        parse("--config=demo", f"--flagfile={file}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"JAX_PLATFORMS": "cuda"}, r"^dsaml: JAX_PLATFORMS=cuda: .*or set JAX_PLATFORMS=cpu\.$"),
        ({"JAX_PLATFORMS": "gpus"}, r"^dsaml: JAX_PLATFORMS=gpus: .*or set JAX_PLATFORMS=cpu\.$"),
        ({"JAX_ENABLE_X64": "maybe"}, "^dsaml: JAX cannot start: .*JAX_ENABLE_X64"),
    ],
)
def test_a_jax_that_cannot_start_ends_with_one_sentence(change, sentence):
    code = (
        "import sys; sys.argv = ['dsaml', '--config=demo']; from dsaml_jax.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **change}, capture_output=True, text=True
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert re.search(sentence, ended.stderr, re.MULTILINE), ended.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams_change_no_message(closed):
    code = f"{sys.executable} -m dsaml_jax --config=demo --config.seed=-1 {closed}"
    ended = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ("seed is -1" in ended.stderr) == (closed == ">&-")


def test_a_config_name_that_is_too_long_is_rejected():
    with pytest.raises(UserError, match="there is no config aaa"):
        parse(f"--config={'a' * 300}")
    with pytest.raises(UserError, match="there is no file /aaa"):
        parse(f"--config=/{'a' * 300}")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_result_is_shown_in_any_encoding(encoding, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    cli.show("caf\udce9 \u2026")
    assert shown.buffer.getvalue().decode(encoding).startswith("caf\\udce9 ")


def test_a_closed_pipe_is_not_an_error(tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as shown:
        monkeypatch.setattr(sys, "stdout", shown)
        cli.show("text")
