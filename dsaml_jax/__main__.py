"""Prepare data, train, evaluate: python -m dsaml_jax --config=demo --workdir=runs/demo"""

import sys


def main() -> None:
    """Runs the command line, or says which extra it needs."""
    try:
        from dsaml_jax.cli import main as run
    except ModuleNotFoundError as error:
        if str(error.name).startswith("dsaml_jax"):
            raise
        sys.exit(
            f"dsaml: {error.name} is not installed; the command line needs the extra `run`: "
            "pip install 'dsaml_jax[run]'"
        )
    run()


if __name__ == "__main__":
    main()
