"""Fills the feature store: what is there already, what is to be done, and on what."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from dsaml_jax.audio import store
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.datasets.schema import Song
from dsaml_jax.errors import UserError
from dsaml_jax.preparation import embedding
from dsaml_jax.preparation.beam import extract_on_beam
from dsaml_jax.preparation.extract import Extracted, Job, extract, make_job
from dsaml_jax.preparation.pool import over_processes

LOG = logging.getLogger(__name__)


def fill_store(
    experiment: Experiment, songs: Sequence[Song], root: str
) -> tuple[dict[str, Job], dict[str, str], int]:
    """Computes what the feature store lacks of these songs.

    Args:
      experiment: says how features are computed, where they go, and on how many processes.
      songs: as read, each with audio and ratings.
      root: the folder that their audio is relative to.

    Returns:
      Jobs of the songs that have features, reasons of those that have none, both by song id, and
      how many had their features before.

    Raises:
      UserError: the data set's folder vanishes meanwhile.
    """
    weights = embedding.weights_file(experiment)
    fingerprint = embedding.weights_fingerprint(weights)
    folder = Path(experiment.data.prepared) / "features"
    store.remove_partial(folder)
    set_aside: dict[str, str] = {}

    def job_of(song: Song) -> Job | None:
        try:
            return make_job(song, root, experiment.audio, str(folder), fingerprint)
        except UserError as error:
            if song.audio:
                _check_still_there(Path(root) / song.audio, root)
            set_aside[song.song_id] = str(error)
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing files waits for the disk
        found = [job for job in pool.map(job_of, songs) if job is not None]
    todo = [job for job in found if not job.done()]
    there = len(found) - len(todo)
    if todo:
        LOG.info("features: %d songs to do, %d done before", len(todo), there)
        if experiment.data.beam_options:
            extract_on_beam(todo, experiment.data.beam_options)
            todo = [job for job in todo if not job.done()]
        for extracted in _outcomes(experiment, todo, weights):
            if extracted.fault:
                if extracted.job.path:
                    _check_still_there(Path(extracted.job.path), root)
                set_aside[extracted.job.song_id] = extracted.fault
    else:
        LOG.info("features: nothing to do, all %d songs were done before", len(found))
    jobs = {job.song_id: job for job in found if job.song_id not in set_aside}
    return jobs, set_aside, there


def _check_still_there(path: Path, root: str) -> None:
    """A file that cannot be read is a fault of the data; one that has gone means they vanished."""
    if not path.exists():
        raise UserError(
            f"{path} was there when the labels were read and has gone; what is done is kept: bring "
            f"{root} back, and run again."
        )


def _outcomes(experiment: Experiment, todo: list[Job], weights: Path | None) -> Iterator[Extracted]:
    """What comes of jobs, with a progress bar on a terminal."""
    tower = None if weights is None else embedding.load_tower(weights, experiment.audio)
    extracted_songs = over_processes(extract, todo, experiment.data.processes)
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
