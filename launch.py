"""Prepare data, train, evaluate: python launch.py --config=configs/demo.py --workdir=runs/demo"""

from dsaml_jax.cli import main

if __name__ == "__main__":
    main()
