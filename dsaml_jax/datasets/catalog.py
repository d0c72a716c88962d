"""The data sets that users bring, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dsaml_jax.datasets import folder_builder
from dsaml_jax.datasets.deam.builder import Deam
from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.datasets.merp.builder import Merp
from dsaml_jax.datasets.merp.parse import MerpOptions
from dsaml_jax.datasets.pmemo.builder import Pmemo
from dsaml_jax.datasets.pmemo.parse import PmemoOptions
from dsaml_jax.datasets.vgmidi.builder import Vgmidi
from dsaml_jax.errors import UserError

DATA_SETS: Mapping[str, tuple[type[FolderBuilder], type[ReadOptions]]] = MappingProxyType(
    {
        "deam": (Deam, ReadOptions),
        "pmemo": (Pmemo, PmemoOptions),
        "merp": (Merp, MerpOptions),
        "vgmidi": (Vgmidi, ReadOptions),
    }
)
"""Name -> builder and the options of its reader."""


def options_of(name: str, **fields: Any) -> ReadOptions:
    """The reader's options of a data set.

    Raises:
      UserError: there is no such data set, or it has no such option.
    """
    options_class = _entry(name)[1]
    known = list(options_class.__dataclass_fields__)
    for field in fields:
        if field not in known:
            raise UserError(
                f"{name} has no option '{field}'{_near(field, known)}; it has {', '.join(known)}."
            )
    return options_class(**fields)


def prepare(
    name: str, root: str | Path, data_dir: str | Path, options: ReadOptions | None = None
) -> FolderBuilder:
    """`folder_builder.prepare` of the data set called `name`.

    Raises:
      UserError: there is no such data set, the root does not exist, or as its reader does.
    """
    builder_class, options_class = _entry(name)
    return folder_builder.prepare(builder_class, root, data_dir, options or options_class())


def _entry(name: str) -> tuple[type[FolderBuilder], type[ReadOptions]]:
    if name not in DATA_SETS:
        raise UserError(
            f"there is no data set '{name}'{_near(name, list(DATA_SETS))}; known are "
            f"{', '.join(DATA_SETS)}."
        )
    return DATA_SETS[name]


def _near(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
