"""Prepare data, train, evaluate: python launch.py --config=configs/demo.py --workdir=runs/demo"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from dsaml_jax.errors import Interrupted, UserError
from dsaml_jax.runtime.files import cannot_write, storage_reason

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/demo.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/CONFIG_NAME.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "study", "compare", "prepare", "dry_run"],
    "What to do.",
)
_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on
_MEMORY = flags.DEFINE_float("memory_gib", 0.0, "Of dry_run: a device's memory; 0: as it says.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "Run on several processes: HOST:PORT of the first one, or 'auto'."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many there are; not with 'auto'.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_CACHE = flags.DEFINE_string("compile_cache", "data/compiled", "Folder of compiled programs.")


def main(argv: list[str]) -> None:
    # JAX starts with these imports: a mistake on the command line is told before.
    from dsaml_jax.commands.compare import compare
    from dsaml_jax.commands.dry_run import dry_run
    from dsaml_jax.commands.prepare import prepare
    from dsaml_jax.commands.study import study_checkpoint
    from dsaml_jax.commands.train import run
    from dsaml_jax.commands.workdir import enable_compilation_cache, lock_workdir
    from dsaml_jax.config.experiment import experiment_from_config
    from dsaml_jax.evaluation.methods import METHOD_ORDER
    from dsaml_jax.runtime import processes
    from dsaml_jax.runtime.signals import exit_on_signal

    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags start with --")
    if _CONFIG.value is None:
        raise UserError("--config is missing; give an experiment, e.g. --config=configs/demo.py")
    processes.initialize_distributed(_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    experiment = experiment_from_config(_CONFIG.value.to_dict())
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    path = Path(_WORKDIR.value or f"runs/{name}")
    # What libraries log while all is well would hide what the run says.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("dsaml_jax").setLevel(
        logging.INFO if processes.is_process_zero() else logging.ERROR
    )
    enable_compilation_cache(_CACHE.value)
    processes.check_agreement("config", experiment)
    if _MODE.value not in ("train", "evaluate", "dry_run"):
        processes.require_one_process(_MODE.value)
    if _MODE.value == "prepare":
        with exit_on_signal(_RUN_AGAIN):
            print(prepare(experiment, path))
        return
    if _MODE.value == "dry_run":
        file = path.with_name(f"{path.name}.dry_run.json")
        print(dry_run(experiment, file, _MEMORY.value))
        print(f"Also in {file}.")
        return
    held = lock_workdir(path, experiment, fresh=_MODE.value in ("train", "compare"))
    with exit_on_signal(_RUN_AGAIN), processes.process_workdir(path, held) as workdir:
        if _MODE.value == "compare":
            print(compare(experiment, workdir))
            print(f"Also in {workdir}/: comparison.md, comparison.csv, comparison.png, runs/.")
            return
        if _MODE.value == "study":
            print(study_checkpoint(experiment, workdir))
            print(f"Also in {workdir}/: study.json, study.md, figures/study.png.")
            return
        every_result = run(experiment, workdir, _MODE.value)
        if not processes.is_process_zero():
            return
        for name, results in every_result.items():
            print(f"{name.replace('_', '-')} test\n\n{results.to_markdown(METHOD_ORDER)}\n")
        print(f"Everything is in {workdir}/: results.json, results.md, figures/, metrics.jsonl.")


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with them is one sentence.

    Raises:
      UserError: an unknown flag or config field (the near match is named), a value of the wrong
        type, or a config file that cannot be read.
    """
    try:
        rest = flags.FLAGS(argv)
        given = flags.FLAGS["config"]
        file = config_flags.get_config_filename(given) if given.present else None
        if file and not Path(file).is_file():
            there = ", ".join(sorted(str(path) for path in Path("configs").glob("*.py")))
            raise UserError(f"--config: there is no file {file}; there are {there}")
        _ = _CONFIG.value  # loads the file
        return rest
    except (AttributeError, KeyError) as error:
        near = re.search('Did you mean "(.+?)" instead of "(.+?)"', str(error))
        reason = f"{near[2]!r}; did you mean {near[1]!r}?" if near else str(error)
        raise UserError(f"--config has no field {reason}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def quiet_about_closed_loops(unraisable: sys.UnraisableHookArgs) -> None:
    """Where a checkpoint cannot be written, threads of the library find its event loop closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.unraisablehook = quiet_about_closed_loops
    try:
        app.run(main, flags_parser=parse)
    except UserError as error:
        sys.exit(f"launch.py: {error}")
    except OSError as error:
        if storage_reason(error) is None:
            raise
        sys.exit(f"launch.py: {cannot_write(error.filename or 'a file', error)}")
    except Interrupted as stopped:
        print(f"launch.py: {stopped}; run the same command again to go on.", file=sys.stderr)
        sys.exit(_RUN_AGAIN)
