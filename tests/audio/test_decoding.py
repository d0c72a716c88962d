"""Decoding of all file types, and one-sentence errors for unusable files."""

import numpy as np
import pytest
import soundfile

from dsaml_jax.audio import decoding
from dsaml_jax.audio.decoding import MIDI_RATE, audio_hash, decode
from dsaml_jax.datasets import layout
from dsaml_jax.errors import UserError
from tests import data_folders

RATE = 22_050


def tone(seconds=1.0, hertz=440.0, size=0.3):
    return (size * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype("f4")


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("wav", {"subtype": "FLOAT"}, 0),
        ("wav", {"subtype": "PCM_24"}, 1e-6),
        ("flac", {}, 1e-4),
        ("ogg", {}, 0.05),
        ("mp3", {}, 0.05),
    ],
)
def test_all_formats_decode_to_the_mean_of_their_channels(tmp_path, suffix, options, tolerance):
    left, right = tone(), tone(hertz=880)
    path = tmp_path / f"sound.{suffix}"
    soundfile.write(path, np.stack([left, right], axis=1), RATE, **options)
    samples, rate = decode(path)
    assert (rate, samples.dtype, samples.ndim) == (RATE, np.float32, 1)
    expected = (left + right) / 2
    assert abs(len(samples) - len(expected)) <= 2400  # mp3 holds whole blocks
    middle = slice(RATE // 4, RATE // 2)
    np.testing.assert_allclose(samples[middle], expected[middle], atol=tolerance)


def test_midi_is_rendered_and_hashed_by_its_notes(tmp_path):
    path = tmp_path / "note.MID"
    path.write_bytes(data_folders.midi_bytes(1.5))
    samples, rate = decode(path)
    assert rate == MIDI_RATE and abs(len(samples) / rate - 1.5) < 0.1
    first = audio_hash(path)
    assert first == audio_hash(path)
    path.write_bytes(data_folders.midi_bytes(1.5, note=61))
    assert first != audio_hash(path)


def write_unusable(path, kind):
    """Writes a file that cannot be used as audio; "absent" writes none."""
    if kind == "absent":
        return path
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no sound at all " * 100)
    elif kind == "folder":
        path.mkdir()
    else:
        samples = {
            "none": np.zeros(0),
            "silent": np.zeros(2000),
            "nan": np.where(np.arange(2000) == 7, np.nan, 0.1),
            "inf": np.where(np.arange(2000) == 7, -np.inf, 0.1),
        }
        soundfile.write(path, samples[kind], RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("absent", "cannot be read: No such file"),
        ("folder", "cannot be (read|decoded)"),
        ("empty", "is empty"),
        ("text", "cannot be decoded"),
        ("none", "contains no samples"),
        ("silent", "silent throughout"),
        ("nan", "not finite"),
        ("inf", "not finite"),
    ],
)
def test_unusable_audio_is_rejected_in_one_sentence(tmp_path, kind, sentence):
    path = write_unusable(tmp_path / "song.wav", kind)
    with pytest.raises(UserError, match=rf"song\.wav .*{sentence}") as caught:
        decode(path)
    assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")


def test_audio_hash_depends_on_the_content_only(tmp_path):
    one, two = tmp_path / "one.wav", tmp_path / "two.wav"
    for path in (one, two):
        soundfile.write(path, tone(), RATE)
    assert audio_hash(one) == audio_hash(two)
    soundfile.write(two, tone(hertz=441), RATE)
    assert audio_hash(one) != audio_hash(two)
    with pytest.raises(UserError, match="cannot be read"):
        audio_hash(tmp_path / "three.wav")


def test_channels_that_cancel_are_rejected(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, np.stack([tone(), -tone()], axis=1), RATE)
    with pytest.raises(UserError, match=r"song\.wav is silent because its channels cancel"):
        decode(path)


def test_rounding_errors_of_channels_that_cancel_become_zero(tmp_path):
    path = tmp_path / "song.wav"
    turn = 10 * 1024
    left = 0.1 * np.random.default_rng(0).normal(size=RATE)
    right = np.where(np.arange(RATE) < turn, left, -left)
    soundfile.write(path, np.stack([left, right], axis=1), RATE)
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    assert expected[turn:].any()
    expected[turn:] = 0
    np.testing.assert_array_equal(decode(path)[0], expected)


@pytest.mark.parametrize("peak", [1e4, 1e30, 3e38])
def test_samples_far_above_full_scale_are_rejected(tmp_path, peak):
    path = tmp_path / "song.wav"
    soundfile.write(path, np.float32(peak) * tone(size=1.0), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"song\.wav contains samples of .*expected at most 1000"):
        decode(path)


def flac_that_states(path, samples):
    """Writes a FLAC file of a tone whose header states another number of samples; 0 is unknown."""
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    fields = int.from_bytes(content[18:26], "big") >> 36 << 36  # STREAMINFO; 36 bits of samples
    content[18:26] = (fields | samples).to_bytes(8, "big")
    path.write_bytes(content)


def test_a_flac_without_its_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "song.flac"
    flac_that_states(path, RATE)
    expected = decode(path)[0]
    flac_that_states(path, 0)
    np.testing.assert_array_equal(decode(path)[0], expected)
    assert len(expected) == RATE and layout.audio_seconds(path) is None


@pytest.mark.parametrize("samples", [RATE + 1, 2**36 - 1])
def test_a_flac_that_is_shorter_than_it_states_is_rejected(tmp_path, samples):
    path = tmp_path / "song.flac"
    flac_that_states(path, samples)
    with pytest.raises(UserError, match=rf"damaged: {RATE} of the {samples} samples that it"):
        decode(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_blocks_are_the_whole_sound(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"song.{suffix}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=(40_000, 2)), RATE)
    with path.open("rb") as file, soundfile.SoundFile(file) as sound:
        expected = sound.read(dtype="float32").mean(axis=1)
    for block in (1000, 4096, 10**6):
        monkeypatch.setattr(decoding, "BLOCK", block)
        with decoding.reading(path) as (blocks, rate):
            parts = [*blocks]
        assert rate == RATE and max(map(len, parts)) <= block
        np.testing.assert_array_equal(np.concatenate(parts), expected)
