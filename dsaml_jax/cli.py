"""The command line: flags, errors as one sentence, and one function for each --mode.

JAX starts when a mode's function imports it; mistakes in the flags are reported before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from dsaml_jax.config.files import config_file, load_config, to_plain_dict
from dsaml_jax.constraints import check_finite
from dsaml_jax.errors import Interrupted, UserError
from dsaml_jax.runtime.files import cannot_write, storage_reason

if TYPE_CHECKING:
    from dsaml_jax.commands.options import ListenerOptions
    from dsaml_jax.config.experiment import Experiment
    from dsaml_jax.evaluation.results import Results

_LONGEST_WAIT_S = 10**6  # longer times overflow the system's timers


class Options(NamedTuple):
    """Flags of some modes.

    Attributes:
      memory_gib: for dry_run, memory of a device in GiB; 0 for what the device reports.
      profile_steps: for train, meta-steps of each stage to trace; 0 for none.
    """

    memory_gib: float
    profile_steps: int


class Mode(NamedTuple):
    """What one --mode does.

    Attributes:
      run: run(experiment, workdir, options) -> the text to print.
      locks_workdir: whether the workdir is opened and locked for it.
      starts_run: whether the workdir may be new; otherwise it must hold a run.
      on_one_process: whether it refuses to run on several processes.
    """

    run: Callable[[Experiment, Path, Options], str]
    locks_workdir: bool = True
    starts_run: bool = False
    on_one_process: bool = True


def main() -> None:
    """Runs the command line and exits: 0, 1 with a sentence, or 75 if the run may be resumed.

    On several processes all exit with the code of the first that fails or is stopped.
    """
    _open_closed_streams()
    try:
        from dsaml_jax.runtime import stopping
    except ValueError as error:  # such as JAX_ENABLE_X64=maybe
        sys.exit(f"{program_name(sys.argv[0])}: JAX cannot start: {error}.")

    sys.unraisablehook = _ignore_closed_event_loops
    program = program_name(sys.argv[0])
    stopper = stopping.STOPPER = stopping.Stopper(program)
    try:
        app.run(_run, flags_parser=lambda argv: parse(argv, flags.FLAGS))
    except UserError as error:
        _notify_other_processes(str(error))
        stopper.end(1, str(error))
    except Interrupted as stopped:
        stopper.end(stopping.RUN_AGAIN, f"{stopped}; run the same command again to resume.")
    except Exception as error:
        if isinstance(error, OSError) and storage_reason(error) is not None:
            stopper.end(1, str(cannot_write(error.filename or "a file", error)))
        stopper.fail(error)
        raise
    finally:
        stopper.close()


def _open_closed_streams() -> None:
    """Replaces standard output and errors that were closed, as by `>&-`, by nothing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def program_name(path: str) -> str:
    """Returns the program's name as the user typed it, from `sys.argv[0]`."""
    name = Path(path).name
    return "python -m dsaml_jax" if name == "__main__.py" else name


def parse(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Defines the flags, loads the config file and applies the overrides of its fields.

    A new name of the estimator on the command line drops those fields of the config file's
    estimator that the new one does not have.

    Args:
      argv: the command line, with the program first.
      values: where the flags are defined; `values.config` is the config afterwards.

    Returns:
      The arguments that are not flags, with the program first.

    Raises:
      UserError: an unknown flag (the near match is named), a value of the wrong type, or a config
        file or a file of flags that cannot be loaded.
    """
    try:
        _define_flags(argv, values)
    except (flags.Error, UnicodeDecodeError) as error:  # it reads --flagfile
        raise UserError(f"--flagfile: {_flag_sentence(str(error))}") from error
    for argument in argv:
        override = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if override and not re.fullmatch(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*", override[1]):
            raise UserError(
                f"--config.{override[1]}: expected field names joined by dots, such as "
                "--config.data.root=DIR."
            )
    try:
        rest = values(argv)
    except (AttributeError, KeyError) as error:
        raise UserError(f"--config: {' '.join(str(error).split())}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_flag_sentence(str(error))) from error
    for name in ("memory_gib", "stop_within", "start_s", "end_s"):
        if values[name].value is not None:
            check_finite(values[name].value, f"--{name}")  # nan passes every bound
    if values.config is not None:
        _drop_fields_of_another_estimator(values)
    return rest


def _define_flags(argv: Sequence[str], values: flags.FlagValues) -> None:
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Experiment: a path such as configs/demo.py, or the name of a shipped one, such as demo.",
        flag_values=values,
        lock_config=False,
        accept_new_attributes=True,  # `experiment_from_config` refuses unknown fields
        sys_argv=list(argv),
    )
    values["config"].parser = _ConfigParser(argv)
    holders = (
        flags.DEFINE_string(
            "workdir",
            None,
            "Folder of the run, by default runs/CONFIG_NAME; or of a listener, of curves, of an "
            "exported model.",
            values,
        ),
        flags.DEFINE_enum(
            "mode",
            "train",
            [*MODES, *CHECKPOINT_MODES],
            "What to do: prepare data, train and evaluate; evaluate a trained run again; diagnose "
            "its meta-gradients; compare variants of the inner loop; prepare data only; report "
            "what fits on a device. With --checkpoint instead of --config: adapt to a listener's "
            "rated songs; predict the curves of songs; export a model.",
            values,
        ),
        flags.DEFINE_float(
            "memory_gib",
            0.0,
            "For dry_run: memory of a device in GiB; 0 for what the device reports.",
            lower_bound=0.0,
            upper_bound=1e6,
            flag_values=values,
        ),
        flags.DEFINE_integer(
            "profile_steps",
            0,
            "For train: meta-steps of each stage to trace into WORKDIR/profile/.",
            lower_bound=0,
            flag_values=values,
        ),
        *_define_listener_flags(values),
        *_define_process_flags(values),
        flags.DEFINE_float(
            "stop_within",
            20.0,
            "Seconds that training has, after SIGTERM, to end its meta-step or validation.",
            lower_bound=0.0,
            upper_bound=_LONGEST_WAIT_S,
            flag_values=values,
        ),
        flags.DEFINE_string(
            "compile_cache", "data/compiled", "Folder of compiled programs.", values
        ),
    )
    # --help shows the flags of the main module, which is not this one.
    for name in ("config", *(holder.name for holder in holders)):
        values.register_key_flag_for_module(argv[0], values[name])


def _define_listener_flags(values: flags.FlagValues) -> tuple[flags.FlagHolder, ...]:
    """Defines the flags of the modes that start from a checkpoint."""
    return (
        flags.DEFINE_string(
            "checkpoint",
            "",
            "A run's workdir, an exported model, a listener's folder, or a .pt of the release.",
            values,
        ),
        flags.DEFINE_multi_string(
            "audio",
            [],
            "A song; for predict also a folder or a pattern; may be repeated.",
            values,
        ),
        flags.DEFINE_multi_string(
            "ratings", [], "For personalize: ratings of each --audio, in the same order.", values
        ),
        flags.DEFINE_string(
            "scale", "", "Scale of the ratings, such as 1..9, unless their file states it.", values
        ),
        flags.DEFINE_enum(
            "time_unit",
            None,
            ["s", "ms"],
            "Unit of their times, unless the file says.",
            values,
        ),
        flags.DEFINE_multi_enum(
            "dimension",
            [],
            ["arousal", "valence"],
            "What a file with one column of values rates; once, or once for each --ratings.",
            values,
        ),
        flags.DEFINE_integer(
            "clips",
            0,
            "For personalize: clips of each song that are adapted to, at most; 0 for all.",
            lower_bound=0,
            flag_values=values,
        ),
        flags.DEFINE_float(
            "start_s",
            0.0,
            "For predict: where in each song to begin, in seconds.",
            lower_bound=0.0,
            flag_values=values,
        ),
        flags.DEFINE_float(
            "end_s", None, "For predict: where to end; default: the end.", flag_values=values
        ),
        flags.DEFINE_string(
            "shared", "", "Where the shared model of a listener is, if it has moved.", values
        ),
        flags.DEFINE_string(
            "embedding_weights",
            "",
            "imagebind_huge.pth, or its conversion, for models that embed songs with ImageBind.",
            values,
        ),
    )


def _define_process_flags(values: flags.FlagValues) -> tuple[flags.FlagHolder, ...]:
    """Defines the flags of a run on several processes."""
    return (
        flags.DEFINE_string(
            "coordinator",
            "",
            "Run on several processes: HOST:PORT of the first one, or 'auto'.",
            values,
        ),
        flags.DEFINE_integer(
            "processes", None, "Number of processes; not with 'auto'.", flag_values=values
        ),
        flags.DEFINE_integer(
            "process_id", None, "Index of this process, from 0.", flag_values=values
        ),
        flags.DEFINE_integer(
            "initialization_timeout",
            300,
            "Seconds that each of several processes waits for the others at the start.",
            lower_bound=1,
            upper_bound=_LONGEST_WAIT_S,
            flag_values=values,
        ),
        flags.DEFINE_integer(
            "heartbeat_timeout",
            20,
            "Seconds without a heartbeat after which one of several processes counts as lost.",
            lower_bound=1,
            upper_bound=_LONGEST_WAIT_S,
            flag_values=values,
        ),
    )


class _ConfigParser(config_flags.config_flags.ConfigFileFlagParser):
    """Loads the config that --config names, and makes room for fields that it does not have."""

    def __init__(self, argv: Sequence[str]):
        super().__init__("config", lock_config=False)
        self._argv = argv

    def parse(self, path: str) -> Any:
        config = load_config(config_file(path))
        for argument in self._argv:
            override = re.match(r"--?config\.([\w.]+)", argument)
            node = config
            for name in override[1].split(".")[:-1] if override else ():
                if not isinstance(node, ConfigDict):
                    break
                if name not in node:
                    node[name] = ConfigDict()
                node = node[name]
        return config


def _drop_fields_of_another_estimator(values: flags.FlagValues) -> None:
    from dsaml_jax.config.estimators import fields_of_another

    prefix = "inner.estimator."
    overrides = config_flags.get_override_values(values["config"])
    if f"{prefix}name" in overrides:
        estimator = values.config.inner.estimator
        given = {path.split(".")[2] for path in overrides if path.startswith(prefix)}
        for name in fields_of_another(estimator, given):
            del estimator[name]


def _flag_sentence(message: str) -> str:
    nested = re.search(r"--config\.([\w.]+)=(\S+): Failed to parse .* as a ConfigDict", message)
    if nested:
        path, value = nested.groups()
        return f"--config.{path} has fields: write --config.{path}.name={value}, for example."
    return " ".join(message.removeprefix("ERROR:: ").split())


def _run(argv: list[str]) -> None:
    """Runs the mode that the parsed flags choose."""
    from dsaml_jax.runtime.stopping import STOPPER, wakeup

    given = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags start with --")
    if given.config is None and given.mode not in CHECKPOINT_MODES:
        raise UserError("--config is missing; give an experiment, e.g. --config=demo.")
    STOPPER.grace = given.stop_within
    _connect(given)
    with wakeup(STOPPER):
        (_run_checkpoint_mode if given.mode in CHECKPOINT_MODES else _run_mode)(given)


def _connect(given: flags.FlagValues) -> None:
    """Connects this process with the others of its run, if there are any."""
    from dsaml_jax.runtime.processes import initialize_distributed, start_devices
    from dsaml_jax.runtime.stopping import STOPPER

    if given.coordinator:
        STOPPER.expect_abort(
            "the other processes of this run are lost, or not reached in time (the reason is "
            "above, and in their logs); run the same command again to resume, and check "
            "--coordinator if they have never been reached."
        )
    initialize_distributed(
        given.coordinator,
        given.processes,
        given.process_id,
        initialization_timeout=given.initialization_timeout,
        heartbeat_timeout=given.heartbeat_timeout,
    )
    start_devices()
    STOPPER.join_run(given.heartbeat_timeout)


def _notify_other_processes(sentence: str) -> None:
    """Connects with the other processes after an error in this one, or they would wait for it."""
    from dsaml_jax.runtime.processes import initialize_distributed
    from dsaml_jax.runtime.stopping import STOPPER

    values = flags.FlagValues()
    _define_process_flags(values)
    with contextlib.suppress(flags.Error, UserError, ValueError):
        values(sys.argv, known_only=True)
        if values.coordinator and not STOPPER.joined:
            STOPPER.expect_abort(sentence, 1)
            initialize_distributed(
                values.coordinator, values.processes, values.process_id, initialization_timeout=20
            )
            STOPPER.join_run(values.heartbeat_timeout)


def _run_mode(given: flags.FlagValues) -> None:
    """Runs a mode on the devices of all connected processes."""
    from dsaml_jax.commands.workdir import lock_workdir
    from dsaml_jax.config.experiment import experiment_from_config, resolved_config
    from dsaml_jax.runtime import processes
    from dsaml_jax.runtime.compilation_cache import enable_compilation_cache

    experiment = experiment_from_config(to_plain_dict(given.config))
    name = Path(config_flags.get_config_filename(given["config"])).stem
    path = Path(given.workdir or f"runs/{name}")
    _quiet_logs(processes.is_process_zero())
    enable_compilation_cache(given.compile_cache)
    processes.check_agreement("config", resolved_config(experiment))
    mode = MODES[given.mode]
    options = Options(given.memory_gib, given.profile_steps)
    if mode.on_one_process:
        processes.require_one_process(given.mode)
    if not mode.locks_workdir:
        show(mode.run(experiment, path, options))
        return
    held = lock_workdir(path, experiment, fresh=mode.starts_run)
    with processes.process_workdir(path, held) as workdir:
        text = mode.run(experiment, workdir, options)
        if processes.is_process_zero():
            show(text)


def _run_checkpoint_mode(given: flags.FlagValues) -> None:
    """Runs a mode that starts from a checkpoint."""
    from dsaml_jax.commands.options import ListenerOptions
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.runtime import processes
    from dsaml_jax.runtime.compilation_cache import enable_compilation_cache

    processes.require_one_process(given.mode)
    _quiet_logs(processes.is_process_zero())
    enable_compilation_cache(given.compile_cache)
    config = None if given.config is None else to_plain_dict(given.config)
    options = ListenerOptions(
        checkpoint=given.checkpoint,
        workdir=given.workdir or "",
        audio=tuple(given.audio),
        ratings=tuple(given.ratings),
        scale=given.scale,
        time_unit=given.time_unit or "",
        dimension=tuple(given.dimension),
        clips=given.clips,
        start_s=given.start_s,
        end_s=given.end_s,
        shared=given.shared,
        embedding_weights=given.embedding_weights,
        experiment=None if config is None else experiment_from_config(config),
    )
    show(CHECKPOINT_MODES[given.mode](options))


def _quiet_logs(shows: bool) -> None:
    """Hides the log lines of libraries, which would hide our own; shows ours on one process."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("dsaml_jax").setLevel(logging.INFO if shows else logging.ERROR)


def show(text: str) -> None:
    """Prints a mode's result, escaping what the terminal's encoding lacks.

    A closed pipe is not an error, since the result is also in files.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:  # e.g. `dsaml ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed again at exit


def _train(experiment: Experiment, workdir: Path, options: Options) -> str:
    from dsaml_jax.commands.train import train

    return _tables(train(experiment, workdir, options.profile_steps), workdir)


def _evaluate(experiment: Experiment, workdir: Path, _: Options) -> str:
    from dsaml_jax.commands.evaluate import evaluate

    return _tables(evaluate(experiment, workdir), workdir)


def _tables(results_by_protocol: Mapping[str, Results], workdir: Path) -> str:
    from dsaml_jax.evaluation.methods import METHOD_ORDER
    from dsaml_jax.reports.conclusion import summary_text

    tables = [
        f"{protocol.replace('_', '-')} test\n\n{summary_text(results, METHOD_ORDER)}\n\n"
        for protocol, results in results_by_protocol.items()
    ]
    files = f"Everything is in {workdir}/: results.json, results.md, figures/, metrics.jsonl."
    return "".join(tables) + files


def _study(experiment: Experiment, workdir: Path, _: Options) -> str:
    from dsaml_jax.commands.study import study_checkpoint

    text = study_checkpoint(experiment, workdir)
    return f"{text}\nAlso in {workdir}/: study.json, study.md, figures/study.png."


def _compare(experiment: Experiment, workdir: Path, _: Options) -> str:
    from dsaml_jax.commands.compare import compare

    text = compare(experiment, workdir)
    return f"{text}\nAlso in {workdir}/: comparison.md, comparison.csv, comparison.png, runs/."


def _prepare(experiment: Experiment, workdir: Path, _: Options) -> str:
    from dsaml_jax.commands.prepare import prepare

    return prepare(experiment, workdir)


def _dry_run(experiment: Experiment, workdir: Path, options: Options) -> str:
    from dsaml_jax.commands.dry_run import dry_run

    folder = workdir.absolute()  # "." has no name
    file = folder.parent / f"{folder.name}.dry_run.json"
    return f"{dry_run(experiment, file, options.memory_gib)}\nAlso in {file}."


MODES: Mapping[str, Mode] = {
    "train": Mode(_train, starts_run=True, on_one_process=False),
    "evaluate": Mode(_evaluate, on_one_process=False),
    "study": Mode(_study),
    "compare": Mode(_compare, starts_run=True),
    "prepare": Mode(_prepare, locks_workdir=False),
    "dry_run": Mode(_dry_run, locks_workdir=False, on_one_process=False),
}


def _personalize(options: ListenerOptions) -> str:
    from dsaml_jax.commands.personalize import personalize

    return personalize(options)


def _predict(options: ListenerOptions) -> str:
    from dsaml_jax.commands.predict import predict

    return predict(options)


def _export(options: ListenerOptions) -> str:
    from dsaml_jax.commands.export import export

    return export(options)


CHECKPOINT_MODES: Mapping[str, Callable[[ListenerOptions], str]] = {
    "personalize": _personalize,
    "predict": _predict,
    "export": _export,
}
"""Modes that start from a trained model: mode(options) -> the text to print."""


def _ignore_closed_event_loops(unraisable: sys.UnraisableHookArgs) -> None:
    """Ignores what checkpoint threads raise after a failed write; prints everything else."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
