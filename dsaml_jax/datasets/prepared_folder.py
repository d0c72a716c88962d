"""Folders that TFDS has prepared: opened, written where missing, and read; damage is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import tensorflow_datasets as tfds

from dsaml_jax.datasets.schema import Song, decode
from dsaml_jax.errors import UserError

_Builder = TypeVar("_Builder", bound=tfds.core.GeneratorBasedBuilder)


def prepare(
    builder_class: type[_Builder],
    config: tfds.core.BuilderConfig,
    data_dir: str | os.PathLike[str],
) -> _Builder:
    """Returns the builder of a config; writes its data as array_record files unless they exist.

    Raises:
      UserError: The folder exists and is damaged, or the builder raises it.
    """
    folder = Path(data_dir) / builder_class.name / config.name
    try:
        builder = builder_class(
            config=config, data_dir=os.fspath(data_dir), file_format="array_record"
        )
    except (OSError, UserError):
        raise
    except Exception as error:  # TFDS has no error of its own for dataset_info.json
        raise _damaged(folder, error) from error
    builder.download_and_prepare()
    if not builder.info.splits:
        raise _damaged(folder, "it states no splits")
    return builder


def read_songs(builder: tfds.core.DatasetBuilder, split: str) -> list[Song]:
    """Returns the songs of a prepared split, in the order in which they are stored.

    Raises:
      UserError: A file is missing or damaged.
    """
    try:
        # TFDS decorates this method in a way that hides its parameters from type checkers.
        source = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]
        return [decode(source[i]) for i in range(len(source))]
    except Exception as error:  # those of array_record and TFDS depend on which bytes are damaged
        raise _damaged(Path(builder.data_path), error) from error


def _damaged(folder: Path, reason: object) -> UserError:
    text = " ".join(str(reason).split())[:200]
    return UserError(f"{folder} is damaged ({text}); delete it and prepare the data set again.")
