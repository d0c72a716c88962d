"""Descriptors of sounds whose pitch, tempo and level are known."""

import dataclasses

import numpy as np
import pytest

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.descriptors import DESCRIPTORS, PULSE_LAGS_S, RATE, SegmentDescriptors
from dsaml_jax.audio.features import clip_features, embedding_size

CONFIG = AudioConfig(
    sample_rate=RATE, window_s=0.1, hop_s=0.1, mel_bands=32, segments=20, embedding="descriptors"
)
LOUDNESS, CENTROID = 0, 1
LAGS = slice(10, 10 + len(PULSE_LAGS_S))
CHROMA = slice(LAGS.stop + 1, LAGS.stop + 13)
REGISTER = slice(DESCRIPTORS - 15, DESCRIPTORS)


def described(sound, config=CONFIG, chunk=60):
    """Returns [n, G] descriptors of a sound that passes in chunks of segments."""
    size = config.segment_samples
    segments = len(sound) // size
    embedder = SegmentDescriptors(segments, config)
    parts = (sound[at * size : (at + chunk) * size] for at in range(0, segments, chunk))
    for _ in embedder.through((part.astype(np.float32), part) for part in parts):
        pass
    return embedder.rows


def tone(hertz, seconds=10.0, rate=RATE):
    return 0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def noise(seconds, seed=0, rate=RATE):
    return 0.05 * np.random.default_rng(seed).normal(size=round(seconds * rate))


@pytest.mark.parametrize(("hertz", "pitch_class", "band"), [(261.63, 0, 4), (440.0, 9, 6)])
def test_a_tone_has_its_pitch_class_and_register(hertz, pitch_class, band):
    rows = described(tone(hertz))[3:-3]
    assert (rows[:, CHROMA].argmax(1) == pitch_class).all()
    assert (rows[:, REGISTER].argmax(1) == band).all()  # bands of 4 semitones from MIDI 43 on


@pytest.mark.parametrize("period_s", [0.3, 0.4, 0.5])
def test_clicks_have_their_period_among_the_lags(period_s):
    sound = noise(12.0) * 0.01
    for at in np.arange(0, len(sound) - 400, round(period_s * RATE)):
        sound[at : at + 400] += noise(400 / RATE, seed=1) * 4
    mean = described(sound)[6:-6, LAGS].mean(0)
    slow = PULSE_LAGS_S > 0.2  # below, the width of a click counts
    assert abs(PULSE_LAGS_S[slow][mean[slow].argmax()] / period_s - 1) < 0.07


def test_a_louder_sound_differs_in_loudness_alone():
    sound = noise(10.0) + tone(300.0)
    soft, loud = described(sound), described(2 * sound)
    change = loud - soft
    np.testing.assert_allclose(change[:, LOUDNESS], np.log(4), atol=1e-3)
    others = np.delete(np.arange(DESCRIPTORS), LOUDNESS)
    assert np.abs(change[:, others]).max() < 0.02


def test_a_higher_tone_is_brighter():
    assert described(tone(2000.0))[:, CENTROID].min() > described(tone(300.0))[:, CENTROID].max()


def test_descriptors_do_not_depend_on_chunks_and_hardly_on_pieces(monkeypatch):
    sound = noise(90.0) + tone(300.0, 90.0)
    whole = described(sound, chunk=60)
    np.testing.assert_array_equal(described(sound, chunk=7), whole)
    monkeypatch.setattr("dsaml_jax.audio.descriptors._PIECE", 1000)
    at_once = described(sound)
    assert (np.abs(whole - at_once) / (at_once.std(0) + 1e-3)).max() < 1e-2


def test_the_second_half_is_the_mean_around_each_segment():
    rows = described(noise(50.0))
    local, mean = rows[:, :DESCRIPTORS], rows[:, DESCRIPTORS:]
    for at in (0, 10, 50, 99):
        expected = local[max(at - 30, 0) : at + 31].mean(0)
        np.testing.assert_allclose(mean[at], expected, rtol=1e-4, atol=1e-4)


def test_silence_and_other_rates_have_finite_descriptors():
    assert np.isfinite(described(np.zeros(5 * RATE))).all()
    slow = dataclasses.replace(CONFIG, sample_rate=8000)
    rows = described(tone(440.0, rate=8000), slow)
    assert np.isfinite(rows).all() and (rows[3:-3, CHROMA].argmax(1) == 9).all()


def test_a_clip_has_one_embedding_for_each_segment():
    features = clip_features(noise(12.0), RATE, 1.0, CONFIG)
    assert features.embedding.shape == (20, embedding_size(CONFIG)) == (20, 2 * DESCRIPTORS)
