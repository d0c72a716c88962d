"""A trained tiny run, and its test songs as files: shared by the tests of this folder."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from dsaml_jax.commands.evaluate import load
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import Experiment, experiment_from_config
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.evaluation.protocols import EvalSet
from dsaml_jax.personal import Listener, Rating
from dsaml_jax.personal.shared import SCALING
from dsaml_jax.preparation.songs import read_labels
from dsaml_jax.training.stages import Trained, train
from tests import tiny


class Finished(NamedTuple):
    """A trained run, its test set, and the test set's songs as files."""

    experiment: Experiment
    workdir: Path
    corpora: dict[str, Corpus]
    test: EvalSet
    trained: Trained
    listener: Listener
    audio: list[str]
    start_s: float

    def rating(self, i: int) -> Rating:
        """Returns a rating of the test set, at the times of the audio."""
        corpus = self.test.corpus
        curve = corpus.curve[i][corpus.valid[i]]
        return Rating(self.start_s + np.arange(len(curve)) / 2, curve[:, 0], curve[:, 1])

    def support(self, episode: int) -> list[tuple[str, Rating]]:
        """Returns the rated songs of an episode."""
        song_of = np.asarray(self.test.corpus.tables.song_of)
        assert self.test.episodes is not None
        support = self.test.episodes.support[episode]
        return [(self.audio[song_of[i]], self.rating(i)) for i in support]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("personal")
    config = tiny.get_config()
    config.data.prepared = str(folder / "prepared")
    config.diagnostics.every = 0  # all else as in tests/commands, whose programs are compiled
    experiment = experiment_from_config(config.to_dict())
    workdir = open_workdir(folder / "run", experiment, fresh=True)
    corpora, tests = load(experiment)
    corpora["train"].scaling.save(workdir / SCALING)
    trained = train(experiment, corpora, workdir)
    labeled, _ = read_labels(experiment.data)
    songs = {song.song_id: song for split in labeled.values() for song in split}
    audio = []
    for song_id in tests["cross_song"].corpus.song_ids:
        path = folder / f"{song_id.replace('/', '_')}.wav"
        soundfile.write(path, songs[song_id].waveform, songs[song_id].sample_rate)
        audio.append(str(path))
    return Finished(
        experiment=experiment,
        workdir=workdir,
        corpora=corpora,
        test=tests["cross_song"],
        trained=trained,
        listener=Listener.open(workdir),
        audio=audio,
        start_s=songs[song_id].ratings_start_s,
    )


def tone(path, seconds=8.0, rate=22_050, hertz=330.0, channels=1, **options) -> str:
    """Writes a tone that grows louder, and returns its path."""
    time = np.arange(int(seconds * rate)) / rate
    sound = 0.5 * (time + 0.2) / (seconds + 0.2) * np.sin(2 * np.pi * hertz * time)
    soundfile.write(path, np.stack([sound] * channels, axis=1), rate, **options)
    return str(path)
