"""TFDS builders of the four data sets that users bring as a folder.

TFDS names a builder, and its folder of prepared data, after the class.
"""

from __future__ import annotations

from dsaml_jax.datasets.deam import parse as deam
from dsaml_jax.datasets.folder_builder import FolderBuilder
from dsaml_jax.datasets.merp import parse as merp
from dsaml_jax.datasets.pmemo import parse as pmemo
from dsaml_jax.datasets.vgmidi import parse as vgmidi


class Deam(FolderBuilder):
    """DEAM; splits "train" (ids up to 2000) and "test" (full-length songs, ids above 2000)."""

    title = "DEAM, dynamic arousal and valence of 1802 songs"
    citation = (
        "Aljanaki, Yang, Soleymani: Developing a benchmark for emotional analysis of music. "
        "PLoS ONE 12(3), 2017."
    )
    read = staticmethod(deam.read)
    split_of = staticmethod(deam.split_of)


class Pmemo(FolderBuilder):
    """PMEmo; its authors define no splits, so all songs are in "train"."""

    title = "PMEmo, dynamic arousal and valence of 767 choruses"
    citation = (
        "Zhang, Zhang, Li, Yang, Sun: The PMEmo dataset for music emotion recognition. ICMR 2018."
    )
    read = staticmethod(pmemo.read)


class Merp(FolderBuilder):
    """MERP; its authors define no splits, so all songs are in "train"."""

    title = "MERP, arousal and valence of 54 songs by 277 raters"
    citation = (
        "Koh, Cheuk, Heung, Agres, Herremans: MERP: a music dataset with emotion ratings and "
        "raters' profile information. Sensors 23(1), 2023."
    )
    read = staticmethod(merp.read)


class Vgmidi(FolderBuilder):
    """VGMIDI; its authors' splits do not separate raters, so all pieces are in "train"."""

    title = "VGMIDI, piano pieces with one rating per bar"
    citation = "Ferreira, Whitehead: Learning to generate music with sentiment. ISMIR 2019."
    read = staticmethod(vgmidi.read)
