"""A `.pt` of the release as the shared model. Its embedding is as wide as the network."""

import jax
import numpy as np
import pytest

from configs import base
from dsaml_jax.audio.features import embedding_size
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.errors import UserError
from dsaml_jax.interop.dsaml_release import axes_to_release, release_names
from dsaml_jax.model import initialize
from dsaml_jax.personal import Listener, Rating
from dsaml_jax.personal.shared import flat
from tests import torch_files
from tests.personal.conftest import tone


def experiment(**changes):
    """Returns a tiny release whose embedding, statistics of the sound, is as wide as the model."""
    config = base.get_config()
    config.update_from_flattened_dict(
        {
            "audio.segments": 12,
            "audio.mel_bands": 5,
            "model.dim": 48,
            "model.heads": 2,
            "model.layers": 1,
            "model.feed_forward": 8,
            "model.lstm_dim": 4,
            "model.predictor_dim": 4,
            "model.normalization": "running",
            "inner.steps": 1,
            **changes,
        }
    )
    return experiment_from_config(config.to_dict())


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Returns a `.pt` file with fresh weights."""
    tiny = experiment()
    assert embedding_size(tiny.audio) == tiny.model.dim
    variables = initialize(tiny.model, jax.random.key(0), tiny.audio.image, tiny.model.dim)
    names = release_names(tiny.model)
    arrays = {names[path]: axes_to_release(path, value) for path, value in flat(variables).items()}
    return torch_files.write_state_dict(tmp_path_factory.mktemp("pt") / "release.pt", arrays)


def test_a_release_adapts_and_predicts(release, tmp_path):
    listener = Listener.open(release, experiment=experiment())
    song = tone(tmp_path / "song.wav", 7)
    before = listener.predict(song)
    assert before.personal is None and before.population.shape == (14, 2)
    times = np.arange(12) / 2
    adapted = listener.adapt([(song, Rating(times, times / 10 - 0.2, 0.3 - times / 20))])
    after = adapted.predict(song)
    np.testing.assert_array_equal(after.population, before.population)
    assert np.abs(after.personal - after.population).max() > 1e-6
    adapted.save(tmp_path / "me")
    opened = Listener.open(tmp_path / "me", experiment=experiment())
    np.testing.assert_array_equal(opened.predict(song).personal, after.personal)


def test_without_imagebind_weights_the_release_is_refused(release):
    with pytest.raises(
        UserError, match=r"whose weights .* are not given; give --embedding_weights"
    ):
        Listener.open(release)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.layers": 2}, "does not contain the weights of this model"),
        ({"audio.mel_bands": 6}, r"does not fit its settings \(params/fusion/project_"),
    ],
)
def test_other_sizes_are_refused(release, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        Listener.open(release, experiment=experiment(**changes))
