"""TFDS builder of PMEmo."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.pmemo import parse


class Pmemo(FolderBuilder):
    """PMEmo; one split, "train", for the makers give none."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    title = "PMEmo, dynamic arousal and valence of 767 choruses"
    citation = (
        "Zhang, Zhang, Li, Yang, Sun: The PMEmo dataset for music emotion recognition. ICMR 2018."
    )
    read = staticmethod(parse.read)
