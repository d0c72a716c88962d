"""Lists the packages of the wheel; everything else is in pyproject.toml.

The folder configs/ lies at the root of the repository, where users edit it, and is installed as the
package `dsaml_jax.configs`, so that `dsaml --config=demo` works without a checkout. pyproject.toml
cannot express this: its package discovery finds nothing outside dsaml_jax/.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dsaml_jax", "dsaml_jax.*"]), "dsaml_jax.configs"],
    package_dir={"dsaml_jax.configs": "configs"},
)
