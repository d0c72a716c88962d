"""Data sets that users provide, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dsaml_jax.datasets import folder_builder
from dsaml_jax.datasets.builders import Deam, Merp, Pmemo, Vgmidi
from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.datasets.merp.parse import MerpOptions
from dsaml_jax.datasets.pmemo.parse import PmemoOptions
from dsaml_jax.errors import known_names, one_of

DATA_SETS: Mapping[str, tuple[type[FolderBuilder], type[ReadOptions]]] = MappingProxyType(
    {
        "deam": (Deam, ReadOptions),
        "pmemo": (Pmemo, PmemoOptions),
        "merp": (Merp, MerpOptions),
        "vgmidi": (Vgmidi, ReadOptions),
    }
)
"""Name -> (builder class, class of its reader's options)."""


def options_of(name: str, /, **fields: Any) -> ReadOptions:
    """Returns the options of a data set's reader.

    Raises:
      UserError: There is no such data set, or it has no such option.
    """
    options_class = _entry(name)[1]
    known_names(name, "option", fields, list(options_class.__dataclass_fields__))
    return options_class(**fields)


def build(
    name: str, root: str | Path, data_dir: str | Path, options: ReadOptions | None = None
) -> FolderBuilder:
    """Builds the data set called `name`; see `folder_builder.build`.

    Raises:
      UserError: There is no such data set, or as `folder_builder.build`.
    """
    builder_class, options_class = _entry(name)
    return folder_builder.build(builder_class, root, data_dir, options or options_class())


def _entry(name: str) -> tuple[type[FolderBuilder], type[ReadOptions]]:
    one_of("the data set", name, tuple(DATA_SETS))
    return DATA_SETS[name]
