"""TFDS builder of DEAM."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from dsaml_jax.datasets.deam import parse
from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.schema import Song


class Deam(FolderBuilder):
    """DEAM; splits "train" (ids to 2000) and "test" (whole songs, ids above 2000)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    title = "DEAM, dynamic arousal and valence of 1802 songs"
    citation = (
        "Aljanaki, Yang, Soleymani: Developing a benchmark for emotional analysis of music. "
        "PLoS ONE 12(3), 2017."
    )
    read = staticmethod(parse.read)

    @staticmethod
    def split_of(song: Song) -> str:
        return parse.split_of(song)
