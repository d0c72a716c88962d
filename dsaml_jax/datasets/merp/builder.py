"""TFDS builder of MERP."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.merp import parse


class Merp(FolderBuilder):
    """MERP; one split, "train", for the makers give none."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    title = "MERP, arousal and valence of 54 songs by 277 raters"
    citation = (
        "Koh, Cheuk, Heung, Agres, Herremans: MERP: a music dataset with emotion ratings and "
        "raters' profile information. Sensors 23(1), 2023."
    )
    read = staticmethod(parse.read)
