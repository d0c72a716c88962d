"""Spoils inputs of every kind at random, and checks that each raises one sentence or succeeds.

    python -m tests.fuzz_inputs --cases=300 --seed=0

A case spoils the smallest valid input of its kind and passes it to the code that reads it in a
command. The case passes if that raises a `UserError` of one line, or succeeds with every row of the
tables used or reported. Kinds alternate; case I of a seed does not depend on --cases, and --only=I
runs it alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
import typing
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import soundfile
from absl import flags

from dsaml_jax import cli
from dsaml_jax.audio import store
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import decode
from dsaml_jax.commands.evaluate import load
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import Experiment, experiment_from_config
from dsaml_jax.constraints import field_types
from dsaml_jax.data.tasks import check_tasks
from dsaml_jax.datasets import catalog, folder_builder
from dsaml_jax.datasets.schema import Rating, Song, encode
from dsaml_jax.errors import UserError
from dsaml_jax.interop.dsaml_release import load_dsaml_checkpoint
from dsaml_jax.interop.imagebind import load_imagebind
from dsaml_jax.interop.torch_file import read_torch_file
from dsaml_jax.meta import InnerLoop
from dsaml_jax.preparation.extract import extract
from dsaml_jax.preparation.job import make_job
from dsaml_jax.preparation.stored import load as load_features
from dsaml_jax.training.checkpoints import Checkpoints
from dsaml_jax.training.devices import task_layout, task_mesh
from dsaml_jax.training.diagnosis import check_study
from dsaml_jax.training.metric_writer import MetricWriter
from dsaml_jax.training.stages import check_patterns, training_stages
from dsaml_jax.training.state import TrainState, restart
from tests import data_folders, tiny, torch_files

LIMIT_S = 60
"""Time limit of a case; one that takes longer fails."""

Random = random.Random
Spoiled = tuple[str, Callable[[], object]]
"""A description of what was spoiled, and the call that must raise `UserError` or succeed."""

TEXTS = ("", "nan", "inf", "-inf", "1e999", "-1", "0", "abc", "0x10", "1,5", "None", "\udcff", "ü")
VALUES: tuple[Any, ...] = (
    *(None, True, "", "nan", "abc", b"x", [], (), {}, {"a": 1}, (0,), (-1, 2), (1.5, "x")),
    *(float("nan"), float("inf"), -float("inf"), -1, 0, 1, -0.0, 0.5, 1e-300, 1e300),
    *(3, 7, 10**4, 2**31, 2**63, 10**30, [[]], object, set()),
)

VALID_AND_LARGE: tuple[tuple[str, Any], ...] = (
    *(("audio", {}), ("data", {}), ("data.builder", {})),  # the defaults
    ("audio.segments", 10**4),
)
"""Changes that only make preparation slower."""

CONFIG_LINES = (
    *("", "x = (", "    return None", "    return 3", "    return {}", "get_config = 3"),
    *("\0", "    raise SystemExit(3)", "    return [].x", "import nothing_there", "'''"),
    *("    1 / 0", "    while", "\ttab\n  mixed", "class C: pass", "    return get_config()"),
)


# Values of config fields, and flags.


def field_paths(cls: type = Experiment, path: str = "") -> Iterator[str]:
    """Yields the path of every field of the experiment, including nested ones and estimators'."""
    for name, annotation in field_types(cls).items():
        where = f"{path}.{name}" if path else name
        yield where
        for kind in (annotation, *typing.get_args(annotation)):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                yield from field_paths(kind, where)


FIELDS = sorted(set(field_paths()))


def start(experiment: Experiment) -> None:
    """Checks the experiment and loads its data, tasks and test sets, as a run does first."""
    tasks = experiment.tasks
    check_patterns(experiment)
    task_layout(tasks.meta_batch, tasks.tasks_per_device, task_mesh())
    corpora, _ = load(experiment)
    for corpus in corpora.values():
        for array in (corpus.tables.log_mel, corpus.tables.embedding):
            assert np.isfinite(np.asarray(array)).all(), "features that are not finite"
    check_tasks(
        corpora["train"], meta_batch=tasks.meta_batch, support=tasks.support, source="train"
    )
    if experiment.diagnostics.every:
        check_study(experiment.inner, tasks)
    for stage in training_stages(experiment):
        stage.config.build_optimizer(stage.inner)


def tiny_config(folder: Path) -> Any:
    config = tiny.get_config()
    config.data.prepared = str(folder)
    config.data.processes = 1
    return config


def spoil_fields(rng: Random, folder: Path) -> Spoiled:
    """Puts other values into one or two fields of a valid experiment."""
    values = tiny_config(shared_folder()).to_dict()
    changes = []
    for path in rng.sample(FIELDS, rng.choice((1, 1, 2))):
        *parents, name = path.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else {}
        value = rng.choice(VALUES)
        if (path, value) in VALID_AND_LARGE:
            value = None
        if isinstance(node, dict):
            node[name] = value
        changes.append(f"{path}={value!r}")
    # Only a case that changes the data prepares its own; the others share one folder.
    if isinstance(values.get("data"), dict) and not any("data.prepared" in c for c in changes):
        changed = any(c.startswith(("audio", "data")) for c in changes)
        values["data"]["prepared"] = str(folder if changed else shared_folder())
    return " ".join(changes), lambda: start(experiment_from_config(values))


def spoil_flags(rng: Random, folder: Path) -> Spoiled:
    """Spoils a flag, an override or the config file of a command line."""
    names = ["mode", "memory_gib", "profile_steps", "processes", "process_id", "config", "nothing"]
    arguments = []
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(names + [f"config.{path}" for path in rng.sample(FIELDS, 9)])
        value = rng.choice((*TEXTS, "True", "1e300", "2.5", "()", "(1,2)", "{'a': 1}", "[", "'"))
        arguments.append(rng.choice((f"--{name}={value}", f"--{name}", f"-{name}={value}")))
    file = folder / "config.py"
    lines = ["from tests import tiny", "def get_config():", "    return tiny.get_config()"]
    if rng.random() < 0.4:
        lines[rng.randrange(3)] = rng.choice(CONFIG_LINES)
    file.write_text("\n".join(lines), encoding="utf-8")
    argv = ["launch.py", f"--config={file}", *arguments]

    def parse() -> None:
        values = flags.FlagValues()
        cli.parse(argv, values)
        if values.config is not None:
            experiment_from_config(values.config.to_dict())

    return f"{arguments} {lines}", parse


# Files of bytes and text.


def spoil_bytes(rng: Random, content: bytes) -> tuple[str, bytes]:
    """Returns what was done, and the spoiled content."""
    place = rng.randrange(len(content) + 1)
    length = rng.choice((1, 2, 8, 64, 512))
    noise = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
    return rng.choice(
        (
            ("emptied", b""),
            (f"cut at {place}", content[:place]),
            (f"beginning lost up to {place}", content[place:]),
            (f"{length} bytes at {place}", content[:place] + noise + content[place + length :]),
            (f"{length} bytes put in at {place}", content[:place] + noise + content[place:]),
            (f"{length} bytes lost at {place}", content[:place] + content[place + length :]),
            ("twice", content * 2),
            ("other content", rng.choice((b"PK\3\4", b"{}", b"[]", b"null", b"RIFF", b"\0" * 99))),
        )
    )


def spoil_text(rng: Random, content: bytes) -> tuple[str, bytes]:
    """Returns what was done, and a spoiled table or JSON file."""
    lines = content.decode().splitlines()
    row = rng.randrange(len(lines))
    column = rng.randrange(len(lines[row].split(",")))
    cells = lines[row].split(",")
    kind = rng.randrange(12)
    new = rng.choice((*TEXTS[:-2], '"', "'", ";", "é", "1e30", " ", "-0", "0.5.5"))
    if kind < 5:
        cells[column] = new
        lines[row] = ",".join(cells)
    elif kind == 5:
        del lines[row]
    elif kind == 6:
        lines.insert(row, rng.choice(("", lines[row], new, ",,,", "\0", '"open')))
    elif kind == 7:
        lines[row] = ",".join(cells[:column])
    elif kind == 8:
        lines[row] = lines[row] + ",0.5"
    elif kind == 9:
        joint = rng.choice((";", "\t", "|", " "))
        return f"joined by {joint!r}", content.replace(b",", joint.encode())
    elif kind == 10:
        code = rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037"))
        return f"in {code}", content.decode().encode(code)
    else:
        return spoil_bytes(rng, content)
    return f"row {row}, column {column}, kind {kind}: {new!r}", "\n".join(lines).encode()


def spoil_file(rng: Random, path: Path, spoil: Callable = spoil_bytes) -> str:
    """Spoils a file in place, or removes it, or makes it a folder; returns what was done."""
    if rng.random() < 0.08:
        path.unlink()
        if rng.random() < 0.5:
            path.mkdir()
        return f"{path.name}: removed or a folder"
    done, content = spoil(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{path.name}: {done}"


def any_file(rng: Random, folder: Path) -> Path:
    return rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


DATA_SETS = {
    "pmemo": data_folders.pmemo,
    "deam": data_folders.deam,
    "vgmidi": data_folders.vgmidi,
    "pmemo 2018": data_folders.pmemo_2018,
}


def spoil_labels(rng: Random, folder: Path) -> Spoiled:
    """Spoils a table of a data set; no audio is needed."""
    name = rng.choice(sorted(DATA_SETS))
    root = folder / "root"
    shutil.copytree(made(name, DATA_SETS[name]), root)
    tables = sorted(path for path in root.rglob("*") if path.suffix in (".csv", ".json"))
    done = spoil_file(rng, rng.choice(tables), spoil_text)
    data_set = name.split()[0]
    builder_class, _ = catalog._entry(data_set)
    options = catalog.options_of(data_set, require_audio=False, strict=rng.random() < 0.2)

    def read() -> None:
        songs, findings = builder_class.read(root, options)
        assert findings.rows_read == findings.rows_used + findings.rows_left_out, (
            f"{findings.rows_read} rows, {findings.rows_used} used and "
            f"{findings.rows_left_out} reported"
        )
        for song in songs:
            for rating in song.ratings:
                assert np.isfinite(rating.curve).all() and np.abs(rating.curve).max() <= 1
        json.dumps(dataclasses.asdict(findings)).encode()
        findings.text().encode()

    return f"{name}: {done}", read


def spoil_prepared(rng: Random, folder: Path) -> Spoiled:
    """Spoils a file of a data set that is prepared; its songs are all read, or none."""

    def prepare(made_folder: Path) -> None:
        catalog.build("deam", data_folders.deam(made_folder / "root"), made_folder / "prepared")

    original = made("prepared deam", prepare)

    def read(prepared: Path) -> str:
        builder = catalog.build("deam", original / "root", prepared)
        folder_builder.findings_of(builder)
        return repr([encode(song) for song in folder_builder.songs_of(builder)])

    whole = read(original / "prepared")
    shutil.copytree(original / "prepared", folder / "prepared")
    done = spoil_file(rng, any_file(rng, folder / "prepared"))

    def compare() -> None:
        assert read(folder / "prepared") == whole, "other songs"

    return done, compare


AUDIO = AudioConfig(sample_rate=8000, mel_bands=16, segments=4)


def spoil_sound(rng: Random, folder: Path) -> Spoiled:
    """Damages an audio file, or writes an unusual one."""
    suffix = rng.choice(("wav", "mp3", "flac", "ogg"))
    path = folder / f"1.{suffix}"
    if rng.random() < 0.7:
        data_folders.audio(path, 3.0)
        done = spoil_file(rng, path)
    else:
        path = path.with_suffix(".wav")
        rate = rng.choice((1, 10, 8000, 384_000))
        channels = rng.choice((1, 2, 8))
        level = rng.choice((0.0, 1.0, 1e30, float("nan"), float("inf"), 1e-40))
        samples = np.full((rng.choice((0, 1, 100, 3 * 8000)), channels), level)
        soundfile.write(path, samples, rate, subtype="DOUBLE")
        done = f"{samples.shape} at {rate} Hz, level {level}"
    curve = np.zeros((6, 2), np.float32)
    song = Song(
        song_id="1",
        audio=path.name,
        duration_s=3.0,
        ratings_start_s=rng.choice((0.0, 0.0, 0.5, 100.0)),
        ratings=(Rating("a", curve),),
    )

    def prepare() -> None:
        if path.is_file():
            waveform, rate = decode(str(path))
            assert np.isfinite(waveform).all() and rate > 0
        job = make_job(song, str(folder), AUDIO, str(folder / "features"), "")
        extracted = extract(job)
        if extracted.fault:
            raise UserError(extracted.fault)
        assert np.isfinite(load_features(job).log_mel).all()

    return f"{path.name}: {done}", prepare


# Weights and arrays.


def _weights() -> dict[str, np.ndarray]:
    return {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.arange(3, dtype=np.int64)}


def spoil_archive(rng: Random, folder: Path) -> Spoiled:
    """Spoils a .pt file, its pickle, or an .npz of weights."""
    path = folder / "a.pt"
    torch_files.write_state_dict(path, _weights())
    if rng.random() < 0.3:
        path = folder / "a.npz"
        np.savez(path, **_weights(), about=np.array(json.dumps({"config": {}})))  # pyright: ignore
        return f"npz: {spoil_file(rng, path)}", lambda: load_imagebind(path)
    if rng.random() < 0.6:  # the pickle, in an archive that is whole
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice([*records, *["saved/data.pkl"] * 3])
        done, records[name] = spoil_bytes(rng, records[name])
        compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(path, "w", compression) as archive:
            for record, content in records.items():
                archive.writestr(record, content)
        done = f"{name}: {done}"
    else:
        done = spoil_file(rng, path)
    read = rng.choice((read_torch_file, load_dsaml_checkpoint))
    return f"pt: {done}", lambda: read(path)


def spoil_store(rng: Random, folder: Path) -> Spoiled:
    """Spoils an entry of the feature store."""
    arrays = {"log_mel": np.ones((4, 3, 2), np.float16), "seconds": np.float64(2)}
    path = store.entry_path(folder, "log_mel", "key")
    store.write(path, **arrays)
    done = spoil_file(rng, path)

    def read() -> None:
        store.is_whole(path)
        for name, array in store.read(path, *arrays).items():
            np.testing.assert_array_equal(array, arrays[name])

    return done, read


# Workdirs and checkpoints.


def spoil_workdir(rng: Random, folder: Path) -> Spoiled:
    """Spoils a file of a workdir that is opened again."""
    experiment = experiment_from_config(tiny_config(folder / "prepared").to_dict())
    workdir = folder / "run"
    open_workdir(workdir, experiment, fresh=True)
    with MetricWriter(workdir) as writer:
        for step in range(3):
            writer.write("meta", step, {"loss": 1.0})
    files = [workdir / name for name in ("config.json", "versions.json", "metrics.jsonl")]
    spoil = rng.choice((spoil_bytes, spoil_text))
    done = spoil_file(rng, rng.choice(files), spoil)

    def reopen() -> None:
        open_workdir(workdir, experiment, fresh=rng.random() < 0.5)
        with MetricWriter(workdir) as writer:
            writer.write("meta", 3, {"loss": 2.0})
            rows = writer.read("meta")
        assert rows[-1]["step"] == 3 and rows[-1]["loss"] == 2.0

    return done, reopen


def _checkpoints(folder: Path) -> Path:
    checkpoints = Checkpoints(folder, {"data": {}})
    for step in (1, 2):
        checkpoints.save(_state(step), {"selection": float(step)})
    checkpoints.close()
    return folder


def _state(step: int) -> TrainState:
    values = {"w": jnp.full((3,), float(step))}
    state = restart(values, {}, InnerLoop(0, optax.sgd(0.1)), optax.sgd(0.1))
    return state._replace(step=jnp.asarray(step, jnp.int32))


def spoil_checkpoints(rng: Random, folder: Path) -> Spoiled:
    """Spoils a file of two checkpoints, usually of the newer one."""
    root = folder / "checkpoints"
    shutil.copytree(made("checkpoints", _checkpoints), root)
    newest = root / "2"
    if rng.random() < 0.1:
        shutil.rmtree(newest)
        newest.mkdir()
        done = "newest emptied"
    else:
        done = spoil_file(rng, any_file(rng, rng.choice((newest, newest, root))))

    def restore() -> None:
        for which in ("last", "best"):
            checkpoints = Checkpoints(root, {"data": {}})
            try:
                saved = getattr(checkpoints, which)(_state(0))
            finally:
                checkpoints.close()
            assert saved is not None, "two checkpoints, and none is restored"
            step = int(saved.state.step)
            np.testing.assert_array_equal(saved.state.weights.meta_params.params["w"], float(step))

    return done, restore


KINDS: dict[str, Callable[[Random, Path], Spoiled]] = {
    "fields": spoil_fields,
    "labels": spoil_labels,
    "prepared data": spoil_prepared,
    "flags": spoil_flags,
    "archives": spoil_archive,
    "sounds": spoil_sound,
    "stores": spoil_store,
    "workdirs": spoil_workdir,
    "checkpoints": spoil_checkpoints,
}

_SHARED: dict[str, Path] = {}


def made(name: str, make: Callable[[Path], Any]) -> Path:
    """Returns a folder with a valid input, made once for all cases."""
    if name not in _SHARED:
        folder = Path(tempfile.mkdtemp(prefix="fuzz_inputs_")) / "made"
        make(folder)
        _SHARED[name] = folder
    return _SHARED[name]


def shared_folder() -> Path:
    """Returns the folder in which the tiny data set is prepared once."""
    return made("prepared", lambda folder: folder.mkdir())


def remove_shared() -> None:
    """Removes the folders that `made` returned."""
    for folder in _SHARED.values():
        shutil.rmtree(folder.parent, ignore_errors=True)
    _SHARED.clear()


def run_case(seed: int, index: int) -> tuple[str, str]:
    """Runs a case; returns its description, and how it failed ("" if it passed)."""
    kind = list(KINDS)[index % len(KINDS)]
    rng = random.Random(f"{seed} {index}")
    with tempfile.TemporaryDirectory(prefix="fuzz_inputs_") as folder, _time_limit(LIMIT_S):
        done = "not yet spoiled"
        try:
            quiet = contextlib.redirect_stdout(io.StringIO())
            with quiet, np.errstate(all="ignore"), contextlib.chdir(folder):
                done, action = KINDS[kind](rng, Path(folder))
                action()
            failure = ""
        except UserError as error:
            failure = _fault_of(str(error))
        except (Exception, SystemExit):
            failure = traceback.format_exc()
    return f"case {index}, {kind}: {done}", failure


def _fault_of(sentence: str) -> str:
    """Returns what is wrong with an error message, or ""."""
    if "\n" in sentence:
        return f"more than one line: {sentence!r}"
    if len(sentence) < 15 or " " not in sentence or "Traceback" in sentence:
        return f"not a sentence: {sentence!r}"
    return ""


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in this thread after `seconds`."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Runs the cases and exits with 1 if any failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=None, help="run this case alone")
    args = parser.parse_args()
    indices = range(args.cases) if args.only is None else (args.only,)
    print(f"seed {args.seed}, {len(indices)} cases", flush=True)
    failed = 0
    for index in indices:
        case, failure = run_case(args.seed, index)
        if failure:
            failed += 1
            print(f"FAILED {case!a}\n{failure}", flush=True)
    remove_shared()
    print(f"seed {args.seed}: {len(indices)} cases, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
