"""Train and evaluate DSAML: python launch.py --config=configs/demo.py --workdir=runs/demo"""

from __future__ import annotations

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from dsaml_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/demo.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/CONFIG_NAME.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")


def main(argv: list[str]) -> None:
    # Imported here, so that a mistake on the command line is told before JAX starts.
    from pathlib import Path

    from dsaml_jax.experiment import experiment_from_config
    from dsaml_jax.run import run
    from dsaml_jax.workdir import open_workdir

    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags start with --")
    if _CONFIG.value is None:
        raise UserError("--config is missing; give an experiment, e.g. --config=configs/demo.py")
    experiment = experiment_from_config(_CONFIG.value.to_dict())
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    path = _WORKDIR.value or f"runs/{name}"
    workdir = open_workdir(path, experiment, fresh=_MODE.value == "train")
    logging.get_absl_handler().python_handler.stream = sys.stderr
    results = run(experiment, workdir, _MODE.value)
    from dsaml_jax.evaluation.protocol import ROW_ORDER

    print(results.to_markdown(ROW_ORDER))
    print(f"\nEverything is in {workdir}/: results.json, results.md, figures/, metrics.jsonl.")


if __name__ == "__main__":
    try:
        app.run(main)
    except UserError as error:
        sys.exit(f"launch.py: {error}")
