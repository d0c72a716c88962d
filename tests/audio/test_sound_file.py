"""Lengths of mp3 files whose header states none or a wrong one."""

import struct

import numpy as np
import pytest
import soundfile

from dsaml_jax.audio import sound_file
from dsaml_jax.audio.decoding import decode
from dsaml_jax.datasets import layout
from dsaml_jax.errors import UserError

SECONDS = 4.0
NAMES = (b"Xing", b"Info")


def variable_mp3(path, rate, channels=1):
    """Writes noise, then a soft tone, at a variable bit rate; returns the sound."""
    time = np.arange(int(SECONDS * rate)) / rate
    noise = np.random.default_rng(0).normal(size=len(time)) * 0.2
    sound = np.where(time < 1, noise, 0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    stacked = np.stack([sound] * channels, axis=1)
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.2}
    soundfile.write(path, stacked, rate, format="MP3", **options)
    return sound


def without_length(path):
    """Removes the first frame, which states the length."""
    content = path.read_bytes()
    first, second = frames(path)[:2]
    assert any(name in content[first:second] for name in NAMES)
    path.write_bytes(content[:first] + content[second:])


def frames(path):
    return sound_file._frame_starts(path.read_bytes())[0]


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (44_100, 2), (22_050, 1), (11_025, 2)])
def test_a_variable_bit_rate_without_a_stated_length_is_read_to_its_end(tmp_path, rate, channels):
    path = tmp_path / "song.mp3"
    variable_mp3(path, rate, channels)
    whole, _ = decode(path)
    without_length(path)
    assert soundfile.info(path).duration < 0.6 * SECONDS  # libsndfile's estimate
    samples, decoded_rate = decode(path)
    assert decoded_rate == rate
    assert layout.audio_seconds(path) == len(samples) / rate
    # The encoder's delay, which the removed frame also stated, is not cut off.
    assert 0 <= len(samples) - len(whole) <= sound_file._PADDING
    delay = min(range(2000), key=lambda n: np.abs(samples[n : n + rate] - whole[:rate]).sum())
    np.testing.assert_allclose(samples[delay : delay + len(whole)], whole, atol=1e-4)


def test_joined_mp3s_are_read_to_the_end_of_the_last(tmp_path):
    path = tmp_path / "song.mp3"
    sound = 0.1 * np.sin(np.arange(3 * 16_000) / 9)
    soundfile.write(path, sound, 16_000, format="MP3")
    one = path.read_bytes()
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb\x90\x00" * 64
    path.write_bytes(tag + one + b"TAG".ljust(128, b"\xff") + one)
    assert layout.audio_seconds(path) == pytest.approx(6, abs=0.3)
    assert len(decode(path)[0]) == pytest.approx(6 * 16_000, abs=0.3 * 16_000)


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_of_the_stated_length_is_read_as_libsndfile_reads_it(tmp_path, mode):
    path = tmp_path / "song.mp3"
    sound = np.random.default_rng(0).normal(size=30_000) * 0.1
    soundfile.write(path, sound, 32_000, format="MP3", bitrate_mode=mode, compression_level=0.5)
    expected, rate = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(decode(path)[0], expected)
    assert layout.audio_seconds(path) == len(expected) / rate


def test_bytes_that_look_like_a_frame_are_not_counted(tmp_path):
    path = tmp_path / "song.mp3"
    variable_mp3(path, 44_100)
    count = len(frames(path))
    assert count == pytest.approx(SECONDS * 44_100 / 1152, abs=4)
    content = path.read_bytes()
    path.write_bytes(content + b"\0\xff\xfb\x90\0" + b"\0\xff" * 2000)
    assert len(frames(path)) == count
    for cut in (content[:-10], content[:1], b"", b"ID3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + content):
        path.write_bytes(cut)
        assert len(frames(path)) < count


def noise(path, seconds=20, rate=22_050, **options):
    """Writes noise; returns the file's bytes."""
    sound = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, sound, rate, **options)
    return path.read_bytes()


def test_an_mp3_that_lacks_frames_in_its_middle_is_rejected(tmp_path):
    path = tmp_path / "song.mp3"
    content = noise(path)
    third, half = len(content) // 3, len(content) // 2
    path.write_bytes(content[:third] + content[half:])
    with pytest.raises(UserError, match=r"no frames after 6\.\d s, so that sound is missing"):
        decode(path)
    starts = frames(path)
    path.write_bytes(content[: starts[50]] + content[starts[60] :])
    with pytest.raises(UserError, match=r"states \d+ frames and holds \d+, so that sound"):
        decode(path)


def test_an_ogg_with_a_damaged_page_is_rejected(tmp_path):
    path = tmp_path / "song.ogg"
    content = bytearray(noise(path))
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"\d+ of the 441000 samples that it states can be decoded"):
        decode(path)


@pytest.mark.parametrize("stated", [0, 16_000])
def test_a_wav_that_states_less_than_it_holds_is_rejected(tmp_path, stated):
    path = tmp_path / "song.wav"
    content = noise(path, seconds=4, rate=8000)
    path.write_bytes(content[:40] + struct.pack("<I", stated) + content[44:])
    with pytest.raises(UserError, match=rf"states {stated} bytes of sound, but {64_000 - stated}"):
        decode(path)


def test_chunks_and_padding_after_the_sound_of_a_wav_are_no_sound(tmp_path):
    path = tmp_path / "song.wav"
    content = noise(path, seconds=1, rate=8000)
    for after in (b"LIST" + struct.pack("<I", 4) + b"INFO", bytes(100), b"1234567"):
        path.write_bytes(content + after)
        assert len(decode(path)[0]) == 8000


def test_a_sample_rate_that_nobody_records_at_is_rejected(tmp_path):
    path = tmp_path / "song.wav"
    noise(path, seconds=4800, rate=1)
    with pytest.raises(UserError, match=r"states a sample rate of 1 Hz; expected at least 2000 Hz"):
        decode(path)
