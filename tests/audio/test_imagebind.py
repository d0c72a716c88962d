"""Properties of ImageBind's input, tower and weights beyond the golden numbers."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.audio.imagebind import (
    IMAGEBIND_HUGE,
    ImageBindAudio,
    embed_fbank,
    embed_waveforms,
)
from dsaml_jax.audio.imagebind_input import (
    AS_RELEASED,
    PUBLISHED,
    imagebind_fbank,
    select_clips,
)
from dsaml_jax.audio.kaldi_fbank import kaldi_fbank, mel_filters
from dsaml_jax.errors import UserError
from dsaml_jax.interop import imagebind as interop
from tests import imagebind_golden, torch_files

RATE = 16_000


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagebind") / "imagebind.pth"
    torch_files.write_state_dict(path, imagebind_golden.weights())
    return interop.read_imagebind_checkpoint(path, imagebind_golden.config())


@pytest.mark.parametrize("rate, size", [(16_000, 512), (44_100, 2048)])
def test_triangles_sum_to_one_between_the_first_and_the_last_peak(rate, size):
    filters = mel_filters(128, size, rate)
    peaks = 700 * np.expm1(np.linspace(*np.log1p(np.array([20, rate / 2]) / 700), 130))[1:-1]
    hertz = np.arange(size // 2 + 1) * rate / size
    inside = (hertz >= peaks[0]) & (hertz <= peaks[-1])
    np.testing.assert_allclose(filters.sum(axis=0)[inside], 1, atol=1e-12)
    assert filters.min() == 0 and np.all(filters[:, hertz <= 20] == 0)


def test_fbank_of_a_sine_peaks_where_its_pitch_lies():
    for hertz in (500.0, 2000.0, 6000.0):
        sine = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
        band = int(np.argmax(kaldi_fbank(sine, RATE).mean(axis=0)))
        mel = np.log1p(np.array([20, hertz, RATE / 2]) / 700)
        assert abs((mel[1] - mel[0]) / (mel[2] - mel[0]) * 129 - 1 - band) <= 1


def test_fbank_moves_with_the_signal_and_ignores_what_does_not_fill_a_frame():
    wave = noise(RATE)
    fbank = kaldi_fbank(wave, RATE)
    assert fbank.shape == (98, 128)
    np.testing.assert_allclose(kaldi_fbank(wave[160:], RATE), fbank[1:], atol=1e-4)
    np.testing.assert_array_equal(kaldi_fbank(wave[:-80], RATE), fbank)


def test_fbank_of_a_louder_or_shifted_signal():
    wave = noise(RATE)
    fbank = kaldi_fbank(wave, RATE)[:, 20:]  # no empty triangles there
    louder = kaldi_fbank(3 * wave, RATE)[:, 20:]
    np.testing.assert_allclose(louder - fbank, 2 * np.log(3), atol=1e-4)
    np.testing.assert_allclose(kaldi_fbank(wave + 0.5, RATE)[:, 20:], fbank, atol=5e-3)


def test_silence_is_the_floor_and_missing_frames_are_zero_before_normalization():
    fbank = np.asarray(imagebind_fbank(np.zeros((3, 2 * RATE), np.float32)))
    floor = np.log(np.finfo(np.float32).eps)
    np.testing.assert_allclose(fbank[..., :198], (floor + 4.268) / 9.138, rtol=1e-6)
    np.testing.assert_allclose(fbank[..., 198:], 4.268 / 9.138, rtol=1e-6)


def test_audio_shorter_than_a_frame_is_refused():
    with pytest.raises(UserError, match=r"399 samples at 16000 Hz .* 400"):
        imagebind_fbank(select_clips(noise(399)))


@given(st.sampled_from([PUBLISHED, AS_RELEASED]), st.integers(400, 60 * 44_100))
def test_clips_are_evenly_spread_from_the_start_to_the_end(recipe, samples):
    clips = select_clips(np.arange(samples), recipe)
    length = min(samples, 2 * recipe.sample_rate)
    assert clips.shape == (3, length)
    np.testing.assert_array_equal(np.diff(clips), 1)
    starts = clips[:, 0]
    assert starts[0] == 0 and samples - length - 1 <= starts[2] <= samples - length
    assert abs(starts[1] - (samples - length) / 2) <= 1


def test_an_embedding_does_not_depend_on_its_batch_nor_on_the_order_of_clips(variables):
    config = imagebind_golden.config()
    waves = [noise(n, seed=n) for n in (RATE, 3 * RATE, 5 * RATE + 7)]
    together = embed_waveforms(variables, waves, config, batch=2)
    for wave, embedding in zip(waves, together, strict=True):
        alone = embed_waveforms(variables, [wave], config, batch=1)[0]
        np.testing.assert_allclose(alone, embedding, atol=1e-5)
    assert np.linalg.norm(together[0] - together[1]) > 0.1
    assert embed_waveforms(variables, [], config).shape == (0, config.output)
    fbank = imagebind_fbank(select_clips(waves[2]))[None]
    forwards, backwards = (embed_fbank(variables, f, config) for f in (fbank, fbank[:, ::-1]))
    np.testing.assert_allclose(forwards, backwards, atol=1e-5)


@pytest.mark.parametrize("log_scale, length", [(np.log(7.0), 7.0), (9.0, 100.0)])
def test_a_clips_embedding_has_the_learned_length_up_to_100(variables, log_scale, length):
    config = imagebind_golden.config()
    scaled = {"params": variables["params"] | {"log_scale": np.float32(log_scale)}}
    clips = ImageBindAudio(config).apply(scaled, imagebind_fbank(noise(2, 2 * RATE)))
    np.testing.assert_allclose(np.linalg.norm(clips, axis=-1), length, rtol=1e-5)


def test_the_extra_key_and_value_take_part(variables):
    config = imagebind_golden.config()
    fbank = imagebind_fbank(noise(1, 2 * RATE))
    block = variables["params"]["block_0"]
    attention = block["attention"]
    before = ImageBindAudio(config).apply(variables, fbank)
    for name in ("bias_key", "bias_value"):
        changed = block | {"attention": attention | {name: attention[name] + 1}}
        after = ImageBindAudio(config).apply(
            {"params": variables["params"] | {"block_0": changed}}, fbank
        )
        assert np.abs(after - before).max() > 1e-3


def test_the_published_size():
    image = jax.ShapeDtypeStruct((1, 1, 128, 204), jnp.float32)
    shapes = jax.eval_shape(ImageBindAudio().init, jax.random.key(0), image)
    assert IMAGEBIND_HUGE.tokens == 229
    # 12 blocks of 12 W^2 + 15 W (two norms, biases, the extra key and value), W = 768; the stem of
    # 256 W + 2 W; class token and positions 230 W; head 2 W + 1024 W; the scale.
    width = 768
    expected = 12 * (12 * width**2 + 15 * width) + (258 + 230 + 1026) * width + 1
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_conversion_round_trip_states_the_license(tmp_path, variables, caplog):
    source = torch_files.write_state_dict(tmp_path / "all.pth", imagebind_golden.weights())
    target = tmp_path / "new" / "audio.npz"
    with caplog.at_level(logging.WARNING, logger="dsaml_jax"):
        interop.convert_imagebind(source, target, imagebind_golden.config())
        config, loaded = interop.load_imagebind(target)
    assert caplog.text.count("CC BY-NC 4.0") == 2
    assert config == imagebind_golden.config()
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
    assert [path.name for path in target.parent.iterdir()] == ["audio.npz"]


def test_weights_inside_a_dictionary_and_in_half_precision_are_read(tmp_path, variables):
    halves = {name: array.astype(np.float16) for name, array in imagebind_golden.weights().items()}
    storages = {name: np.ravel(array) for name, array in halves.items()}
    tensors = {
        name: torch_files.Tensor(name, 0, array.shape, torch_files.contiguous(array.shape))
        for name, array in halves.items()
    }
    path = torch_files.write(tmp_path / "a.pth", {"epoch": 1, "model": tensors}, storages)
    read = interop.read_imagebind_checkpoint(path, imagebind_golden.config())
    jax.tree.map(
        lambda half, full: np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-6),
        read,
        dict(variables),
    )


def test_wrong_weights_are_listed_by_name_and_nothing_is_overwritten(tmp_path):
    weights = imagebind_golden.weights()
    del weights["modality_trunks.audio.blocks.1.attn.bias_k"]
    weights["modality_heads.audio.2.weight"] = np.zeros((3, 2), np.float32)
    weights["modality_trunks.audio.blocks.2.norm_1.weight"] = np.zeros(3, np.float32)
    source = torch_files.write_state_dict(tmp_path / "wrong.pth", weights)
    target = tmp_path / "audio.npz"
    target.write_text("what was there")
    with pytest.raises(UserError) as caught:
        interop.convert_imagebind(source, target, imagebind_golden.config())
    sentence = str(caught.value)
    assert "modality_trunks.audio.blocks.1.attn.bias_k is missing" in sentence
    assert "modality_heads.audio.2.weight has shape (3, 2) where (" in sentence
    assert "modality_trunks.audio.blocks.2.norm_1.weight is unknown" in sentence
    assert sentence.count(";") == 2 and "\n" not in sentence
    assert target.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio.npz", "wrong.pth"]


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = torch_files.write_state_dict(tmp_path / "a.pth", {"w": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r"no weights of ImageBind's audio tower"):
        interop.read_imagebind_checkpoint(path)


def test_files_that_convert_did_not_write_are_refused(tmp_path):
    source = torch_files.write_state_dict(tmp_path / "all.pth", imagebind_golden.weights())
    target = tmp_path / "audio.npz"
    interop.convert_imagebind(source, target, imagebind_golden.config())
    content = target.read_bytes()
    path = tmp_path / "bad.npz"
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for bad in (b"", b"text", content[:middle], flipped, source.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"bad.npz: damaged"):
            interop.load_imagebind(path)
    np.savez(path, w=np.zeros(2))
    with pytest.raises(UserError, match=r"bad.npz: damaged"):
        interop.load_imagebind(path)
    with pytest.raises(UserError, match="No such file"):
        interop.load_imagebind(tmp_path / "none.npz")
    with pytest.raises(UserError, match="cannot be written"):
        interop.convert_imagebind(source, source / "below.npz", imagebind_golden.config())
