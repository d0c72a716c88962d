"""Data sets that users provide, by name."""

from __future__ import annotations

import difflib
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
from dsaml_jax.errors import UserError

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
    known = list(options_class.__dataclass_fields__)
    for field in fields:
        if field not in known:
            raise UserError(
                f"{name} has no option '{field}'{_near(field, known)}; its options are "
                f"{', '.join(known)}."
            )
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
    if name not in DATA_SETS:
        raise UserError(
            f"there is no data set '{name}'{_near(name, list(DATA_SETS))}; choose one of "
            f"{', '.join(DATA_SETS)}."
        )
    return DATA_SETS[name]


def _near(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
