"""Folders that TFDS has prepared: written where missing, checked, and read; damage is named."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from dsaml_jax.datasets import schema
from dsaml_jax.errors import UserError
from dsaml_jax.runtime.files import read_json_object, storage_reason

_Builder = TypeVar("_Builder", bound=tfds.core.GeneratorBasedBuilder)

_REMEDY = "delete it and prepare the data set again"


def prepare(
    builder_class: type[_Builder],
    config: tfds.core.BuilderConfig,
    data_dir: str | os.PathLike[str],
) -> _Builder:
    """Returns the builder of a config; writes its data as array_record files unless they exist.

    Raises:
      UserError: The folder exists and is damaged, or the builder raises it.
    """
    folder = Path(data_dir) / builder_class.name / config.name / str(builder_class.VERSION)
    for place in (folder.parents[1], folder.parent, folder):
        if os.path.lexists(place) and not place.is_dir():
            raise UserError(f"{place} is not a folder, as prepared data are; {_REMEDY}.")
    exists = folder.exists()
    with _damage_named(folder) if exists else contextlib.nullcontext():
        if exists:  # TFDS takes any folder for one that it has prepared
            _json_object(folder / "dataset_info.json")
        builder = builder_class(
            config=config, data_dir=os.fspath(data_dir), file_format="array_record"
        )
    builder.download_and_prepare()
    with _damage_named(folder):
        _check(builder, folder)
    return builder


def read_songs(builder: tfds.core.DatasetBuilder, split: str) -> list[schema.Song]:
    """Returns the songs of a prepared split, in the order in which they are stored.

    Raises:
      UserError: A file is missing or damaged.
    """
    with _damage_named(Path(builder.data_path)):
        # TFDS decorates this method in a way that hides its parameters from type checkers.
        source = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]
        return [schema.decode(source[i]) for i in range(len(source))]


def _check(builder: tfds.core.DatasetBuilder, folder: Path) -> None:
    """Raises ValueError if the files are not those that dataset_info.json and the builder state.

    TFDS reads the files and the number of songs that dataset_info.json states, even if there are
    more.
    """
    features = _json_object(folder / "features.json").get("featuresDict")
    names = features.get("features") if isinstance(features, dict) else None
    if not isinstance(names, dict) or set(names) != set(schema.features()):
        raise ValueError("features.json does not state the features of a song")
    stated = {
        path.name: songs
        for split in builder.info.splits.values()
        for path, songs in zip(split.filepaths, split.shard_lengths, strict=True)
    }
    if not stated:
        raise ValueError("dataset_info.json states no songs")
    found = {path.name for path in folder.glob("*.array_record-*")}
    for name in sorted(found ^ stated.keys()):
        raise ValueError(
            f"dataset_info.json does not state {name}" if name in found else f"{name} is missing"
        )
    for name, songs in stated.items():
        stored = _records(folder / name)
        if stored != songs:
            raise ValueError(f"{name} has {stored} songs, dataset_info.json states {songs}")


def _records(path: Path) -> int:
    """Returns the number of records in a file; raises ValueError if it is damaged."""
    try:
        reader = ArrayRecordReader(os.fspath(path))
        try:
            return reader.num_records()
        finally:
            reader.close()
    except Exception as error:  # its class depends on the damage, and it may have no text
        raise ValueError(f"{path.name}: {str(error) or 'it is not complete'}") from error


def _json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises ValueError that names the file if it is missing or damaged."""
    try:
        return read_json_object(path)
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turns errors into UserError; those of array_record and TFDS depend on the damage."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        refused = storage_reason(error)
        if refused:
            raise UserError(f"{folder} cannot be read: {refused}.") from error
        text = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{folder} is damaged ({text}); {_REMEDY}.") from error
