"""The global embedding that needs weights: ImageBind's tower, run over many songs."""

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
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.errors import UserError
from dsaml_jax.interop.imagebind import convert_imagebind, load_imagebind
from dsaml_jax.preparation.extract import Extracted, store_embeddings

LOG = logging.getLogger(__name__)

Tower = Callable[[list[np.ndarray]], np.ndarray]
"""Windows, each [clips, clip samples], to their embeddings [windows, G]."""

BATCH = 8
"""Windows a call of the tower."""


def weights_file(experiment: Experiment) -> Path | None:
    """The converted weights that the experiment's embedding needs; None where it needs none.

    ImageBind's own file is converted on first use, into the folder of prepared data.

    Raises:
      UserError: the file cannot be read or is not what it should be.
    """
    data, kind = experiment.data, experiment.audio.embedding
    if kind not in RECIPES:
        LOG.info(
            "global embedding: statistics of the sound, without weights (docs/data.md says how to "
            "use ImageBind's, which are CC BY-NC 4.0)"
        )
        return None
    given = Path(data.embedding_weights).expanduser()
    try:
        stat = given.stat()
    except OSError as error:
        raise UserError(
            f"data.embedding_weights: {given} cannot be read: {error.strerror}."
        ) from error
    if given.suffix == ".npz":
        return given
    name = f"{given.stem}-{stat.st_size}-{stat.st_mtime_ns}.npz"
    converted = Path(data.prepared) / "weights" / name
    if not converted.exists():
        LOG.info("converting the audio part of %s to %s", given, converted)
        convert_imagebind(given, converted)
    return converted


def weights_fingerprint(path: Path | None) -> str:
    """A hash of the weights; "" without any."""
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_tower(path: Path, audio: AudioConfig) -> Tower:
    """The tower with weights from a converted file."""
    config, variables = load_imagebind(path)
    recipe = RECIPES[audio.embedding]
    return functools.partial(embed_clips, variables, config=config, recipe=recipe, batch=BATCH)


def embedded(extracted_songs: Iterable[Extracted], tower: Tower | None) -> Iterator[Extracted]:
    """Passes outcomes on in order, once the embeddings that they lack are computed and stored.

    Windows of several songs share a call of the tower.
    """
    held: list[Extracted] = []
    for extracted in extracted_songs:
        held.append(extracted)
        windows = sum(len(each.clips) for each in held if each.clips is not None)
        if windows == 0 or windows >= BATCH:
            yield from _embed(held, tower)
            held = []
    yield from _embed(held, tower)


def _embed(extracted_songs: list[Extracted], tower: Tower | None) -> Iterator[Extracted]:
    todo = [extracted for extracted in extracted_songs if extracted.clips is not None]
    if todo and tower is not None:
        embeddings = tower([window for extracted in todo for window in extracted.clips])
        ends = np.cumsum([len(extracted.clips) for extracted in todo])[:-1]
        for extracted, part in zip(todo, np.split(embeddings, ends), strict=True):
            store_embeddings(extracted.job, part)
    yield from extracted_songs
