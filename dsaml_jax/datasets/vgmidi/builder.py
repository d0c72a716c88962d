"""TFDS builder of VGMIDI."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.vgmidi import parse


class Vgmidi(FolderBuilder):
    """VGMIDI; one split, "train", for the makers split otherwise than by rater."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    title = "VGMIDI, piano pieces rated a value a bar"
    citation = "Ferreira, Whitehead: Learning to generate music with sentiment. ISMIR 2019."
    read = staticmethod(parse.read)
