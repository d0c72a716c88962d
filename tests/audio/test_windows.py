"""Sound in blocks gives the numbers of the whole sound, to the bit."""

import librosa
import numpy as np
import pytest

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import WindowStatistics, image_chunks, window_starts
from dsaml_jax.audio.log_mel import cut_segments, log_mel
from dsaml_jax.audio.statistics import clip_statistics
from dsaml_jax.audio.windows import resampled, windows


def blocks(sound, size):
    return (sound[at : at + size] for at in range(0, len(sound), size))


def noise(length):
    return np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)


@pytest.mark.parametrize("rates", [(48_000, 44_100), (22_050, 44_100), (44_100, 16_000), (8, 8)])
def test_resampling_equals_that_of_the_whole_sound(rates):
    for length in (100, 30_001):
        sound = noise(length)
        expected = librosa.resample(sound, orig_sr=rates[0], target_sr=rates[1])
        for size in (997, 10**6):
            got = np.concatenate([*resampled(blocks(sound, size), *rates)])
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_windows_are_slices_and_read_the_sound_to_its_end(size):
    sound, read = noise(200), []
    padded = np.pad(sound, (0, 100))
    source = (read.append(len(block)) or block for block in blocks(sound, size))
    starts = [0, 3, 3, 40, 195, 250]
    for start, window in zip(starts, windows(source, starts, 20), strict=True):
        np.testing.assert_array_equal(window, padded[start : start + 20])
    assert sum(read) == 200
    rest = blocks(sound, size)
    assert [*windows(rest, [], 5)] == [] and next(rest, None) is None


@pytest.mark.parametrize("hop", [7, 65, 110])
def test_features_in_pieces_equal_those_of_the_whole_span(hop):
    """130 segments are three chunks; windows of 12 segments cross their borders."""
    config = AudioConfig(sample_rate=8000, mel_bands=16, segments=12, embedding_hop=hop)
    sound, n = noise(8000 * 70), 130
    span = sound[8000 : 8000 + n * 4000]
    expected = log_mel(cut_segments(span, config), config)
    statistics = WindowStatistics(n, config)
    chunks = image_chunks(blocks(sound, 5001), 8000, 1.0, n, config)
    images = np.concatenate([*statistics.through(chunks)])
    np.testing.assert_array_equal(images, expected)
    starts = window_starts(n, config)
    assert len(statistics.rows) == len(starts)
    for start, row in zip(starts, statistics.rows, strict=True):
        clip = span[start * 4000 : (start + 12) * 4000]
        np.testing.assert_array_equal(
            row, clip_statistics(clip, expected[start : start + 12], config)
        )
