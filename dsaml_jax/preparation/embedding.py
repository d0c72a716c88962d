"""The global embedding that needs weights: ImageBind's tower, applied to many songs."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import RECIPES
from dsaml_jax.audio.imagebind import embed_clips
from dsaml_jax.config.experiment import DataConfig
from dsaml_jax.errors import UserError
from dsaml_jax.interop.imagebind import convert_imagebind, load_imagebind
from dsaml_jax.preparation.extract import Extracted, store_embeddings

LOG = logging.getLogger(__name__)

Tower = Callable[[list[np.ndarray]], np.ndarray]
"""Maps windows, each [clips, clip samples], to their embeddings [windows, G]."""

BATCH = 8
"""Windows per call of the tower."""


def weights_file(data: DataConfig, kind: str) -> Path | None:
    """Returns the path of the converted weights that an embedding needs; None if it needs none.

    ImageBind's own file is converted on first use, into the folder of prepared data.

    Args:
      data: Names the file of weights and the folder of prepared data.
      kind: Kind of the embedding, `AudioConfig.embedding`.

    Raises:
      UserError: The file cannot be read or is invalid.
    """
    if kind not in RECIPES:
        LOG.info(
            "global embedding: %s of the sound, without weights (docs/data.md explains how to use "
            "ImageBind's, which are licensed CC BY-NC 4.0)",
            kind,
        )
        return None
    given = Path(data.embedding_weights).expanduser()
    try:
        stat = given.stat()
    except OSError as error:
        raise UserError(
            f"data.embedding_weights: {given} cannot be read: {error.strerror}; give the path of "
            "imagebind_huge.pth."
        ) from error
    if given.suffix == ".npz":
        return given
    name = f"{given.stem}-{stat.st_size}-{stat.st_mtime_ns}.npz"
    converted = Path(data.prepared) / "weights" / name
    if not converted.exists():
        LOG.info("converting the audio part of %s to %s", given, converted)
        convert_imagebind(given, converted)
    return converted


def weights_hash(path: Path | None) -> str:
    """Returns a hash of the weights; "" if there are none."""
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_tower(path: Path, audio: AudioConfig) -> Tower:
    """Returns the tower with the weights of a converted file."""
    config, variables = load_imagebind(path)
    recipe = RECIPES[audio.embedding]
    return functools.partial(embed_clips, variables, config=config, recipe=recipe, batch=BATCH)


def embedded(extracted_songs: Iterable[Extracted], tower: Tower | None) -> Iterator[Extracted]:
    """Yields the songs in order, once their missing embeddings are computed and stored.

    Windows of several songs share a call of the tower.
    """
    held: list[Extracted] = []
    for extracted in extracted_songs:
        held.append(extracted)
        windows = sum(len(song.clips) for song in held if song.clips is not None)
        if windows == 0 or windows >= BATCH:
            yield from _embed(held, tower)
            held = []
    yield from _embed(held, tower)


def _embed(extracted_songs: list[Extracted], tower: Tower | None) -> Iterator[Extracted]:
    todo = [(song.job, song.clips) for song in extracted_songs if song.clips is not None]
    if todo and tower is not None:
        embeddings = tower([window for _, clips in todo for window in clips])
        ends = np.cumsum([len(clips) for _, clips in todo])[:-1]
        for (job, _), part in zip(todo, np.split(embeddings, ends), strict=True):
            store_embeddings(job, part)
    yield from extracted_songs
