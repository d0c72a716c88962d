"""The TFDS builder of data sets that users provide as a folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from dsaml_jax.datasets import layout, prepared_folder, report, schema, tree
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.errors import UserError

Reader = Callable[[Path, Any], tuple[list[schema.Song], report.Findings]]


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """The folder to read and the reader's options.

    TFDS prepares each config in a folder named after it. The name is derived from the root, the
    options, the contents of all tables, and every audio file's path, size and modification time
    (see `tree.digest`), so a different or modified root is never mistaken for data that are already
    prepared.

    Attributes:
      root: Absolute path of the data set's folder.
      options: Options of the data set's reader.
    """

    root: str = ""
    options: ReadOptions = dataclasses.field(default_factory=ReadOptions)


class FolderBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that reads a folder, saves the findings with the prepared data, and yields songs.

    A subclass defines the reader, the title, the citation and, where the data set has splits,
    `split_of`. Empty splits are omitted; "all" is their union.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "First version.",
        "1.1.0": "Ids are normalized, and every row is used or reported.",
    }
    read: ClassVar[Reader]
    title: ClassVar[str]
    citation: ClassVar[str] = ""

    @staticmethod
    def split_of(song: schema.Song) -> str:
        """Returns the name of the split that a song belongs to."""
        del song
        return "train"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.title,
            citation=self.citation,
            features=schema.features(),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # nothing is downloaded: users provide the data
        config = self.builder_config
        assert isinstance(config, FolderConfig)  # `build` always passes one
        songs, findings = type(self).read(Path(config.root), config.options)
        findings.save(Path(self.data_path))
        splits: dict[str, list[schema.Song]] = {}
        for song in songs:
            splits.setdefault(self.split_of(song), []).append(song)
        return {name: self._generate_examples(splits[name]) for name in sorted(splits)}

    def _generate_examples(self, songs: Sequence[schema.Song]) -> Iterator[tuple[str, dict]]:
        for song in songs:
            yield song.song_id, schema.encode(song)


def config_of(root: str | Path, options: ReadOptions, data_set: str) -> FolderConfig:
    """Returns the config that identifies a folder in its present state.

    Raises:
      UserError: The root is not a folder, or a link in it leads to a folder that contains it.
    """
    root = layout.existing_root(root, data_set)
    digest = tree.digest(root, str(options))
    readable = re.sub(r"[^A-Za-z0-9]+", "_", root.name).strip("_")[:40]
    return FolderConfig(
        name=f"{readable}-{digest}" if readable else digest,
        description=f"{data_set} read from a folder",
        root=str(root),
        options=options,
    )


def build(
    builder_class: type[FolderBuilder],
    root: str | Path,
    data_dir: str | Path,
    options: ReadOptions,
) -> FolderBuilder:
    """Reads a data set's folder into array_record files, unless they exist already.

    Args:
      builder_class: The data set's builder.
      root: The data set's folder, in its original layout.
      data_dir: Folder for prepared data sets.
      options: Options of the reader.

    Returns:
      The builder, ready for `as_data_source`; `findings_of` returns its findings.

    Raises:
      UserError: The reader raises it, `data_dir` is inside the root, or prepared data are damaged.
    """
    config = config_of(root, options, builder_class.title)
    if Path(data_dir).expanduser().resolve().is_relative_to(config.root):
        raise UserError(
            f"{data_dir} is inside the data set's folder {config.root}; choose a folder outside it "
            "for prepared data (data.prepared)."
        )
    return prepared_folder.prepare(builder_class, config, data_dir)


def findings_of(builder: FolderBuilder) -> report.Findings:
    """Returns the findings that were saved when the builder's data were prepared."""
    return report.load(Path(builder.data_path))


def songs_of(builder: FolderBuilder, split: str = "all") -> list[schema.Song]:
    """Returns the prepared songs of a split, ordered by id; see `prepared_folder.read_songs`."""
    return sorted(
        prepared_folder.read_songs(builder, split),
        key=lambda song: (len(song.song_id), song.song_id),
    )
