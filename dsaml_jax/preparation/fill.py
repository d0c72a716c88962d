"""Filling of the feature store with the entries that are missing."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from dsaml_jax.audio import store
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.config.experiment import DataConfig
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation import embedding
from dsaml_jax.preparation.beam import extract_on_beam
from dsaml_jax.preparation.extract import Extracted, extract
from dsaml_jax.preparation.job import Job, make_job
from dsaml_jax.runtime.files import locked
from dsaml_jax.runtime.pool import over_processes

LOG = logging.getLogger(__name__)


def fill_store(
    data: DataConfig, audio: AudioConfig, songs: Sequence[Song], root: str
) -> tuple[dict[str, Job], dict[str, str], int]:
    """Computes the features of these songs that are not in the store.

    Args:
      data: Where features are stored, and by how many processes or on which pipeline.
      audio: How features are computed.
      songs: Songs as read, each with audio and ratings.
      root: The folder to which their audio paths are relative.

    Returns:
      Jobs of the songs that have features and reasons for those that have none, both by song id,
      and the number of songs whose features existed before.

    Raises:
      UserError: The data set's folder disappears meanwhile.
    """
    weights = embedding.weights_file(data, audio.embedding)
    folder = Path(data.prepared) / "features"
    weights_hash = embedding.weights_hash(weights)
    set_aside: dict[str, str] = {}

    def job_of(song: Song) -> Job | None:
        try:
            return make_job(song, root, audio, str(folder), weights_hash)
        except UserError as error:
            if song.audio:
                _check_exists(Path(root) / song.audio, root)
            set_aside[song.song_id] = str(error)
            return None

    with locked(folder / ".lock"):
        store.remove_partial(folder)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing files is bound by the disk
            readable = [job for job in pool.map(job_of, songs) if job is not None]
        todo = [job for job in readable if not job.done()]
        already_stored = len(readable) - len(todo)
        if todo:
            LOG.info("features: %d songs to compute, %d already stored", len(todo), already_stored)
            if data.beam_options:
                extract_on_beam(todo, data.beam_options)
                todo = [job for job in todo if not job.done()]
            for extracted in _extracted(data, audio, todo, weights):
                if extracted.fault:
                    if extracted.job.path:
                        _check_exists(Path(extracted.job.path), root)
                    set_aside[extracted.job.song_id] = extracted.fault
        else:
            LOG.info("features: nothing to compute, all %d songs already stored", len(readable))
    jobs = {job.song_id: job for job in readable if job.song_id not in set_aside}
    return jobs, set_aside, already_stored


def _check_exists(path: Path, root: str) -> None:
    """Raises UserError if a file has disappeared, which is no fault of the data set."""
    if not path.exists():
        raise UserError(
            f"{path} existed when the labels were read and has disappeared; finished work is kept: "
            f"restore {root} and run the same command again."
        )


def _extracted(
    data: DataConfig, audio: AudioConfig, todo: list[Job], weights: Path | None
) -> Iterator[Extracted]:
    """Runs the jobs and yields their results, with a progress bar on a terminal."""
    tower = None if weights is None else embedding.load_tower(weights, audio)
    extracted_songs = over_processes(extract, todo, data.processes)
    quiet = not sys.stderr.isatty()
    return iter(
        tqdm(
            embedding.embedded(extracted_songs, tower),
            "features",
            len(todo),
            unit="song",
            disable=quiet,
        )
    )
