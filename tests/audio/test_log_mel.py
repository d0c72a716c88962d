"""Log-mel images: parity with the release, and properties by construction."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsaml_jax.audio import log_mel as log_mel_module
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import clip_features, embedding_size
from dsaml_jax.audio.log_mel import cut_segments, log_mel

FOLDER = Path(os.environ.get("DSAML_GOLDEN") or Path(__file__).parents[1] / "golden")


def test_log_mel_parity_with_the_release():
    golden = np.load(FOLDER / "logmel.npz")
    audio, rate = soundfile.read(FOLDER / "logmel.flac", dtype="float32", always_2d=True)
    config = AudioConfig()
    assert rate == config.sample_rate
    start = round(float(golden["start_s"][0]) * rate)
    segments = cut_segments(audio.mean(1)[start:], config)[: len(golden["log_mel"])]
    np.testing.assert_allclose(
        golden["start_s"], golden["start_s"][0] + config.segment_s * np.arange(len(segments))
    )
    images = log_mel(segments, config)
    assert images.shape == golden["log_mel"].shape
    assert np.abs(images - golden["log_mel"]).max() <= 1e-3


def test_a_tone_peaks_in_its_band_and_gain_adds_in_log():
    config = AudioConfig(sample_rate=16_000, mel_bands=40, segments=4)
    time = np.arange(16_000 * 3) / 16_000
    tone = (0.1 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    soft = clip_features(tone, 16_000, 0.5, config)
    loud = clip_features(2 * tone, 16_000, 0.5, config)
    assert soft.log_mel.shape == (4, *config.image)
    assert soft.embedding.shape == (embedding_size(config),)
    # HTK mel scale: 2595 log10(1 + f / 700), 40 bands between 0 and 8 kHz.
    mel = 2595 * np.log10(1 + np.array([1000.0, 8000.0]) / 700)
    assert soft.log_mel.mean((0, 1)).argmax() == round(mel[0] / mel[1] * 41) - 1
    peak = soft.log_mel.max()
    np.testing.assert_allclose(loud.log_mel.max() - peak, np.log(4), atol=1e-3)


def test_features_do_not_depend_on_sound_outside_the_clip_or_the_sample_type():
    config = AudioConfig(sample_rate=16_000, mel_bands=32, segments=6)
    rng = np.random.default_rng(0)
    sound = (rng.normal(size=16_000 * 6) * 3000).clip(-32768, 32767).astype(np.int16)
    here = clip_features(sound, 16_000, 1.0, config)
    other = sound.copy()
    other[:16_000], other[4 * 16_000 :] = 0, 0
    as_float = other.astype(np.float32) / 32_768
    for left, right in zip(here, clip_features(as_float, 16_000, 1.0, config), strict=True):
        np.testing.assert_array_equal(left, right)


def test_silence_and_short_audio_give_finite_features():
    config = AudioConfig(sample_rate=16_000, mel_bands=32, segments=6)
    for sound in (np.zeros(16_000 * 6, np.float32), np.ones(1000, np.float32)):
        for feature in clip_features(sound, 16_000, 0.0, config):
            assert np.isfinite(feature).all()


@pytest.mark.parametrize("segments", [0, 61])
def test_chunks_do_not_change_the_images(monkeypatch, segments):
    config = AudioConfig(sample_rate=16_000, mel_bands=32)
    sound = np.random.default_rng(0).normal(size=(segments, config.segment_samples)) * 0.1
    chunks = log_mel(sound, config)
    assert chunks.dtype == np.float32 and chunks.shape == (segments, *config.image)
    monkeypatch.setattr(log_mel_module, "CHUNK", max(segments, 1))
    np.testing.assert_array_equal(chunks, log_mel(sound, config))
