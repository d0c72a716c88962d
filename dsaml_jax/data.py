"""From a config to the three corpora of a run: train, validation, test."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import Features, clip_features
from dsaml_jax.corpus import Corpus, Scaling, build_corpus
from dsaml_jax.datasets import schema, synthetic
from dsaml_jax.errors import UserError
from dsaml_jax.experiment import Experiment

LOG = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def load_corpora(experiment: Experiment) -> dict[str, Corpus]:
    """Prepares the data set if need be, extracts features, and indexes the ratings by split.

    Embeddings are scaled to the training songs' mean 0 and deviation 1.

    Raises:
      UserError: a song or an annotator is in two splits, or `build_corpus` refuses one.
    """
    data = experiment.data
    builder = synthetic.prepare(data.prepared, synthetic.builder_config("run", **data.builder))
    corpora = {}
    for split in SPLITS:
        songs = [schema.decode(each) for each in builder.as_data_source(split=split)]
        corpora[split] = build_corpus(
            songs,
            _extract_all(songs, experiment.audio, split),
            min_songs=data.min_songs,
            source=f"{data.name}, {split}",
        )
        LOG.info("%s: %s", split, corpora[split])
    check_disjoint(corpora)
    scaling = Scaling.of(corpora["train"])
    return {split: scaling.apply(corpus) for split, corpus in corpora.items()}


def check_disjoint(corpora: dict[str, Corpus]) -> None:
    """Raises UserError where splits share a song or an annotator."""
    seen: dict[str, str] = {}
    for split, corpus in corpora.items():
        for kind, names in (("song", corpus.song_ids), ("annotator", corpus.annotator_ids)):
            for name in names:
                other = seen.setdefault(f"{kind} {name}", split)
                if other != split:
                    raise UserError(f"{kind} {name} is in both {other} and {split}; remove one.")


def _extract_all(songs: list[schema.Song], audio: AudioConfig, split: str) -> list[Features]:
    """Features of every song's clip, on all cores (FFTs release the interpreter lock)."""

    def extract(song: schema.Song) -> Features:
        return clip_features(song.waveform, song.sample_rate, song.ratings_start_s, audio)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(extract, songs)
        quiet = not sys.stderr.isatty()
        return list(tqdm(found, f"features, {split}", len(songs), unit="song", disable=quiet))
