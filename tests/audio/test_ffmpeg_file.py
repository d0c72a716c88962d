"""m4a: decoded by FFmpeg's libraries, if PyAV is installed."""

import sys

import numpy as np
import pytest

from dsaml_jax.audio.decoding import decode
from dsaml_jax.errors import UserError

RATE = 22_050


def write_m4a(path, seconds=2.0, channels=2):
    """Writes a 440 Hz tone as AAC; returns its samples."""
    av = pytest.importorskip("av", reason="needs PyAV (the extra m4a)")
    samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype("f4")
    with av.open(str(path), "w") as container:
        layout = "stereo" if channels == 2 else "mono"
        stream = container.add_stream("aac", rate=RATE, layout=layout)
        for start in range(0, len(samples), 1024):
            block = np.stack([samples[start : start + 1024]] * channels)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return samples


@pytest.mark.parametrize("channels", [1, 2])
def test_m4a_decodes_to_its_sound(tmp_path, channels):
    samples = write_m4a(tmp_path / "a.m4a", channels=channels)
    found, rate = decode(tmp_path / "a.m4a")
    assert rate == RATE and abs(len(found) - len(samples)) <= 2048  # whole frames
    # The encoder's delay is cut off: the sound is in place.
    middle = slice(RATE // 2, RATE)
    np.testing.assert_allclose(found[middle], samples[middle], atol=0.02)


def test_a_damaged_m4a_is_refused(tmp_path):
    write_m4a(tmp_path / "a.m4a")
    content = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.m4a").write_text("no sound " * 100)
    for name in ("cut.m4a", "text.m4a"):
        with pytest.raises(UserError, match=f"{name} cannot be decoded"):
            decode(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        decode(tmp_path / "absent.m4a")


def test_a_film_without_sound_is_refused(tmp_path):
    av = pytest.importorskip("av", reason="needs PyAV (the extra m4a)")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(UserError, match="has no sound"):
        decode(tmp_path / "a.mp4")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'dsaml_jax\[m4a\]'"):
        decode(tmp_path / "a.m4a")
