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
from dsaml_jax.errors import UserError, known_names


@dataclasses.dataclass(eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
    """A TFDS config that contains settings; its name ends in their digest.

    TFDS prepares each config in a folder named after it, so different settings never share one.

    Attributes:
      settings: Of the simulation.
      processes: Number of processes that draw songs; 0 for one per core. The data do not depend on
        it.
    """

    settings: SyntheticSettings = dataclasses.field(default_factory=SyntheticSettings)
    processes: int = 1

    def __post_init__(self) -> None:
        if not self.name.endswith(self.settings.digest):
            self.name = f"{self.name}-{self.settings.digest}"


def builder_config(name: str = "default", /, **fields: Any) -> SyntheticConfig:
    """Returns a config with some settings changed, e.g. `builder_config(train_songs=8)`.

    Raises:
      UserError: There is no such setting, or its value is invalid.
    """
    known_names("data.builder", "setting", fields, list(field_types(SyntheticSettings)))
    spread = fields.get("spread", ListenerSpread())
    if not isinstance(spread, ListenerSpread):
        known = list(field_types(ListenerSpread))
        if not isinstance(spread, Mapping):
            raise UserError(
                f"data.builder.spread is {spread!r}; expected some of {', '.join(known)}."
            )
        known_names("data.builder.spread", "setting", spread, known)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in spread.items()
        }
        fields["spread"] = ListenerSpread(**values)
    return SyntheticConfig(name=name, settings=SyntheticSettings(**fields))


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
        for song in songs(config.settings, split, config.processes):
            yield song.song_id, schema.encode(song)


def build(
    data_dir: str | os.PathLike[str], config: SyntheticConfig, processes: int = 1
) -> Synthetic:
    """Renders the data set into `data_dir` unless it exists there already.

    Progress bars are shown only if standard error is a terminal.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = dataclasses.replace(config, processes=processes)
    return prepared_folder.prepare(Synthetic, config, data_dir)
