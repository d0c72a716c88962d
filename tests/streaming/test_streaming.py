"""Streaming equals offline prediction of the song so far, in bounded memory."""

import dataclasses
import tracemalloc

import jax
import librosa
import numpy as np
import pytest

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import blocks_of
from dsaml_jax.audio.features import (
    SongFeatures,
    embedding_size,
    image_chunks,
    make_embedder,
    tower_clips,
    window_starts,
)
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.encoding import predict_song
from dsaml_jax.model import DSAMLConfig, initialize
from dsaml_jax.streaming import StreamingFeatures, StreamingPredictor
from dsaml_jax.streaming.sound import SegmentStream

S, RATE = 12, 16_000
AUDIO = AudioConfig(sample_rate=RATE, window_s=0.1, hop_s=0.1, mel_bands=16, segments=S)
MODEL = DSAMLConfig(
    dim=8,
    heads=2,
    layers=1,
    feed_forward=8,
    channels=(2, 2),
    local_width=3,
    global_width=6,
    lstm_dim=4,
    predictor_dim=4,
    decision=True,
)


def music(seconds, rate=RATE):
    """Returns notes that change, with noise."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 220 * 2 ** (rng.integers(0, 24, int(seconds * 3) + 1) / 12)
    notes = np.sin(2 * np.pi * np.cumsum(pitch[(t * 3).astype(int)]) / rate)
    loudness = 0.3 + 0.2 * np.sin(t / 3)
    return (loudness * notes * np.exp(-(t * 3 % 1)) + 0.01 * rng.normal(size=len(t))).astype("f4")


def in_blocks(sound, seed=0):
    """Yields the sound in blocks of random sizes, also empty ones."""
    rng, at = np.random.default_rng(seed), 0
    while at < len(sound):
        size = int(rng.integers(0, 9000))
        yield sound[at : at + size]
        at += size


def scaling_of(audio):
    rng = np.random.default_rng(1)
    width = embedding_size(audio)
    return Scaling(rng.normal(size=width).astype("f4"), rng.uniform(1, 5, width).astype("f4"))


def offline(model, audio, variables, scaling, sound, rate, segments):
    """Predicts n segments of a song as evaluation does, with a window at every segment: [n, 2]."""
    n = max(segments, audio.segments)
    embedder = make_embedder(n, audio)
    chunks = image_chunks(blocks_of(sound), rate, 0.0, n, audio)
    images = np.concatenate([*embedder.through(chunks)])
    rows = scaling.apply(np.stack([*embedder.rows]))
    song = SongFeatures(images, rows, window_starts(n, audio))
    return predict_song(model, variables, song, audio.segments, (1, 1))[:segments]


def case(embedding, normalization, **changes):
    audio = dataclasses.replace(AUDIO, embedding=embedding, **changes)
    model = dataclasses.replace(MODEL, normalization=normalization)
    width = embedding_size(audio)
    variables = initialize(model, jax.random.key(0), audio.image, width)
    return model, audio, variables, scaling_of(audio)


@pytest.mark.parametrize(
    "embedding, normalization",
    [("statistics", "clip"), ("descriptors", "clip"), ("descriptors", "running")],
)
def test_each_value_is_the_last_one_of_the_song_so_far(embedding, normalization):
    model, audio, variables, scaling = case(embedding, normalization)
    sound = music(23.3)
    stream = StreamingPredictor(model, audio, variables, RATE, scaling=scaling)
    values = [value for block in in_blocks(sound) for value in stream.push(block)]
    values += stream.finish()
    assert [value.time_s for value in values] == [0.5 * k for k in range(47)]
    assert [value.heard_s for value in values] == [min(0.5 * k, 6.0) for k in range(1, 48)]
    size = audio.segment_samples
    curve = np.array([[value.arousal, value.valence] for value in values])
    assert curve.std(0).min() > 1e-3
    # The first segment, a window that is not full, the first full one, a later one, and the last,
    # which the song fills in part.
    for k in (0, 4, S - 1, 40, 46):
        before = offline(model, audio, variables, scaling, sound[: (k + 1) * size], RATE, k + 1)
        np.testing.assert_allclose(curve[k], before[k], atol=1e-5, err_msg=str(k))


@pytest.mark.parametrize("normalization", ["clip", "running"])
def test_full_windows_equal_the_whole_song_at_another_rate(normalization):
    """Checks every value where features do not look ahead: images, and an embedding a window."""
    model, audio, variables, scaling = case("statistics", normalization, embedding_hop=1)
    sound = music(15.0, rate=22_050)
    stream = StreamingPredictor(model, audio, variables, 22_050, scaling=scaling)
    stereo = np.stack([sound * 1.5, sound * 0.5], axis=1)
    values = [value for block in in_blocks(stereo) for value in stream.push(block)]
    assert len(values) == 29, "the resampler holds the end of the last segment back"
    values += stream.finish()
    whole = offline(model, audio, variables, scaling, sound, 22_050, 30)
    curve = np.array([[value.arousal, value.valence] for value in values])
    np.testing.assert_allclose(curve[S - 1 :], whole[S - 1 :], atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, RATE, 44_100])
def test_segments_do_not_depend_on_the_blocks(rate):
    sound = music(3.2, rate)
    stream = SegmentStream(rate, RATE, RATE // 2)
    segments = [segment for block in in_blocks(sound) for segment in stream.push(block)]
    segments = np.concatenate(segments + stream.finish())
    whole = sound if rate == RATE else librosa.resample(sound, orig_sr=rate, target_sr=RATE)
    assert len(segments) == 7 * RATE // 2
    np.testing.assert_array_equal(segments[: len(whole)], whole)
    np.testing.assert_array_equal(segments[len(whole) :], 0)


@pytest.mark.parametrize("embedding", ["statistics", "descriptors"])
def test_memory_does_not_grow_with_the_stream(embedding):
    audio = dataclasses.replace(AUDIO, embedding=embedding)
    stream = StreamingFeatures(audio, 22_050)
    sound = music(10.0, 22_050)

    def held(blocks):
        for _ in range(blocks):
            stream.push(sound)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, later = held(3), held(5)
    finally:
        tracemalloc.stop()
    # Python's caches of small objects grow a little at first.
    assert later - first < 0.05 * 5 * 10 * 4 * audio.sample_rate, "a twentieth of the sound"


def test_imagebind_is_run_at_every_hop_and_kept_in_between():
    audio = AudioConfig(
        window_s=0.1,
        hop_s=0.1,
        mel_bands=16,
        segments=S,
        embedding="imagebind_as_released",
        embedding_hop=5,
    )
    seen = []

    def tower(windows):
        seen.append(windows[0])
        return np.full((1, 3), len(seen), np.float32)

    sound = music(8.0, 44_100)
    windows = StreamingFeatures(audio, 44_100, tower=tower).push(sound)
    assert [window.embedding[0] for window in windows] == [1] * 5 + [2] * 5 + [3] * 5 + [4]
    # The last one is of segments 4 ... 15.
    expected = tower_clips(blocks_of(sound), 44_100, 2.0, S, audio)[0]
    np.testing.assert_array_equal(seen[-1], expected)
    with pytest.raises(UserError, match="needs ImageBind's weights"):
        StreamingFeatures(audio, 44_100)


@pytest.mark.parametrize(
    "block, message",
    [
        (np.zeros((2, 3, 4)), "shape"),
        (np.zeros(5, np.int32), "type int32"),
        (np.zeros((5, 0)), "no channel"),
        (np.array([0.0, np.nan]), "finite"),
        (np.array([0.0, np.inf]), "finite"),
        (np.array([5000.0]), "at most 1000"),
    ],
)
def test_blocks_that_are_no_sound_are_refused(block, message):
    stream = SegmentStream(RATE, RATE, RATE // 2)
    with pytest.raises(UserError, match=message):
        stream.push(block)
    assert stream.push(np.zeros(RATE // 2, np.int16))[0].dtype == np.float32


def test_rates_out_of_range_are_refused():
    with pytest.raises(UserError, match="4000 Hz; expected 8000 to 192000"):
        SegmentStream(4_000, RATE, RATE // 2)
