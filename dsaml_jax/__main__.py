"""Prepare data, train, evaluate: python -m dsaml_jax --config=demo --workdir=runs/demo"""

from dsaml_jax.cli import main

if __name__ == "__main__":
    main()
