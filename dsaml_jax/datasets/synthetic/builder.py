"""The TFDS builder of the simulated data set; needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from dsaml_jax.constraints import field_types
from dsaml_jax.datasets import prepared_folder, schema
from dsaml_jax.datasets.synthetic.listeners import ListenerSpread
from dsaml_jax.datasets.synthetic.settings import SPLITS, SyntheticSettings
from dsaml_jax.datasets.synthetic.simulation import songs
from dsaml_jax.errors import UserError


@dataclasses.dataclass(eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
    """A TFDS config that contains settings; its name ends in their digest.

    TFDS prepares each config in a folder named after it, so different settings never share one.
    """

    settings: SyntheticSettings = dataclasses.field(default_factory=SyntheticSettings)

    def __post_init__(self) -> None:
        if not self.name.endswith(self.settings.digest):
            self.name = f"{self.name}-{self.settings.digest}"


def builder_config(name: str = "default", /, **fields: Any) -> SyntheticConfig:
    """Returns a config with some settings changed, e.g. `builder_config(train_songs=8)`.

    Raises:
      UserError: There is no such setting, or its value is invalid.
    """
    _check_known(SyntheticSettings, fields, "data.builder")
    spread = fields.get("spread", ListenerSpread())
    if not isinstance(spread, ListenerSpread):
        _check_known(ListenerSpread, spread, "data.builder.spread")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in spread.items()
        }
        fields["spread"] = ListenerSpread(**values)
    return SyntheticConfig(name=name, settings=SyntheticSettings(**fields))


def _check_known(cls: type, fields: Any, path: str) -> None:
    """Raises UserError unless `fields` is a mapping of some fields of a dataclass."""
    known = list(field_types(cls))
    if not isinstance(fields, Mapping):
        raise UserError(f"{path} is {fields!r}; expected some of {', '.join(known)}.")
    for field in fields:
        if field not in known:
            raise UserError(
                f"{path}: the synthetic data have no setting {field!r}; choose among "
                f"{', '.join(known)}."
            )


class Synthetic(tfds.core.GeneratorBasedBuilder):
    """Simulated songs with the ratings of simulated listeners, in the common schema."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[SyntheticConfig]] = [builder_config()]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Songs rendered from six emotional cues, rated by simulated listeners.",
            features=schema.features(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        assert isinstance(config, SyntheticConfig)  # BUILDER_CONFIGS and `build` hold no other
        for song in songs(config.settings, split):
            yield song.song_id, schema.encode(song)


def build(data_dir: str | os.PathLike[str], config: SyntheticConfig) -> Synthetic:
    """Renders the data set into `data_dir` unless it exists there already.

    Progress bars are shown only if standard error is a terminal.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return prepared_folder.prepare(Synthetic, config, data_dir)
