"""ImageBind's embeddings in the feature store: the right windows, computed once, resumable."""

import logging

import librosa
import numpy as np
import pytest

from dsaml_jax.audio.decoding import blocks_of, decode
from dsaml_jax.audio.features import RECIPES, embedding_size, tower_clips
from dsaml_jax.audio.imagebind import embed_waveforms
from dsaml_jax.errors import UserError
from dsaml_jax.interop.imagebind import convert_imagebind, load_imagebind
from tests import data_folders, imagebind_golden
from tests.preparation.test_preparation import by_id, entries, experiment, preparation_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Returns the converted weights of a small tower."""
    folder = tmp_path_factory.mktemp("weights")
    source = imagebind_golden.checkpoint(folder / "tower.pth")
    convert_imagebind(source, folder / "tower.npz", imagebind_golden.config())
    return folder / "tower.npz"


def options(weights, kind="imagebind"):
    return {"audio.embedding": kind, "data.embedding_weights": str(weights)}


def test_embeddings_match_their_windows_and_are_resumed(weights, tmp_path, caplog):
    root, folder = data_folders.pmemo(tmp_path / "pmemo"), tmp_path / "prepared"
    chosen = experiment("pmemo", root, folder, **options(weights))
    with caplog.at_level(logging.INFO, "dsaml_jax"):
        prepared = preparation_of(chosen)
    assert "CC BY-NC 4.0" in caplog.text
    config, variables = load_imagebind(weights)
    song, features = by_id(prepared, "1"), prepared.features["1"]
    assert features.starts.tolist() == [0, 10, 20, 22] and len(features.log_mel) == 34
    waveform, rate = decode(root / song.audio)
    sound = librosa.resample(waveform, orig_sr=rate, target_sr=16_000)
    sound = np.pad(sound, (0, 16_000))
    windows = [sound[(30 + at) * 8000 : (30 + at + 12) * 8000] for at in features.starts]
    expected = embed_waveforms(variables, windows, config)
    np.testing.assert_allclose(features.embeddings, expected, rtol=1e-4, atol=1e-4)

    before = entries(folder)
    for path in (folder / "features" / "embedding").iterdir():
        path.unlink()
    preparation_of(chosen)
    after = entries(folder)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    recomputed = sum(after[name] != before[name] for name in after)
    assert recomputed == 2  # the embeddings of two songs; their images were kept


def test_other_embedding_kinds_have_separate_entries(weights, tmp_path):
    root, folder = data_folders.pmemo(tmp_path / "pmemo"), tmp_path / "prepared"
    first = preparation_of(experiment("pmemo", root, folder))
    assert first.features["1"].embeddings.shape == (
        4,
        embedding_size(experiment("pmemo", root, folder).audio),
    )
    second = preparation_of(experiment("pmemo", root, folder, **options(weights)))
    assert second.already_there == 0
    assert second.features["1"].embeddings.shape == (4, load_imagebind(weights)[0].output)
    assert len(list((folder / "features" / "log_mel").iterdir())) == 2
    assert len(list((folder / "features" / "embedding").iterdir())) == 4


@pytest.mark.parametrize("kind", RECIPES)
def test_the_tower_gets_three_clips_at_the_rate_of_the_recipe(kind, weights, tmp_path):
    audio = experiment("pmemo", tmp_path, tmp_path, **options(weights, kind)).audio
    noise = np.random.default_rng(0).normal(0, 0.1, 44_100 * 9).astype(np.float32)
    clips = tower_clips(blocks_of(noise), 44_100, 1.0, 14, audio)
    rate = RECIPES[kind].sample_rate
    assert clips.shape == (2, 3, 2 * rate)
    assert embedding_size(audio) == 1024
    if rate == 44_100:  # not resampled: 6 s windows, with clips at 0, 2 and 4 s of each
        for window, start in enumerate((1.0, 2.0)):
            for clip, offset in enumerate((0, 2, 4)):
                first = round((start + offset) * rate)
                expected = noise[first : first + 2 * rate]
                np.testing.assert_array_equal(clips[window, clip], expected)


def test_missing_weights_are_rejected(tmp_path):
    root = data_folders.pmemo(tmp_path / "pmemo")
    chosen = experiment("pmemo", root, tmp_path / "prepared", **options(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"data\.embedding_weights: .*none\.pth cannot be read"):
        preparation_of(chosen)
