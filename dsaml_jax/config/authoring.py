"""What config files are written with: defaults, and optimizers, estimators and engines by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from dsaml_jax.constraints import field_types


def defaults(cls: type) -> Any:
    """Returns the defaults of a config dataclass and of those nested in it, as a ConfigDict.

    Fields without a default are absent; config files must set them.
    """
    values = ConfigDict()
    kinds = field_types(cls)
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            made: Any = field.default_factory()
            is_mapping = isinstance(made, dict)
            values[field.name] = ConfigDict(made if is_mapping else dataclasses.asdict(made))
        elif dataclasses.is_dataclass(kinds[field.name]):
            values[field.name] = defaults(kinds[field.name])
    return values


def optimizer(name: str, **options: Any) -> ConfigDict:
    """Returns an optimizer by the name of its function in optax."""
    return ConfigDict({"name": name, "options": ConfigDict(options)})


def estimator(name: str, **fields: Any) -> ConfigDict:
    """Returns an estimator of the meta-gradient, one of `config.estimators.ESTIMATORS`."""
    return ConfigDict({"name": name, **fields})


def engine(name: str, **fields: Any) -> ConfigDict:
    """Returns an engine of exact meta-gradients, one of `meta.ENGINES`."""
    return ConfigDict({"name": name, **fields})
