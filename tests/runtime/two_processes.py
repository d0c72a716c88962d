"""One of two processes of the command line, whose mode "train" is replaced by a mishap.

python -m tests.runtime.two_processes MISHAP --coordinator=... --processes=2 --process_id=I

Process 1 suffers it; process 0 waits for process 1 in a collective operation. "none" keeps the
mode as it is.
"""

import os
import signal
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsaml_jax import cli
from dsaml_jax.errors import UserError
from dsaml_jax.runtime import signals


def suffer(mishap: str) -> None:
    if mishap == "input":
        raise UserError("labels.csv has no column song_id.")
    if mishap == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    mishap = sys.argv.pop(1)

    def run(*_) -> str:
        def wait() -> None:
            multihost_utils.process_allgather(np.zeros(1))

        wait()  # connected
        if jax.process_index() == 1:
            suffer(mishap)
        if mishap == "training":  # that does not come to the end of a step
            with signals.defer_signals():
                wait_forever = signal.pause if jax.process_index() == 1 else wait
                wait_forever()
        wait()
        return "not stopped"

    if mishap != "none":
        cli.MODES = {"train": cli.Mode(run, locks_workdir=False, on_one_process=False)}
    cli.main()


if __name__ == "__main__":
    main()
