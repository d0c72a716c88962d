"""ImageBind's audio tower gives the numbers of its PyTorch code, from the waveform on."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dsaml_jax.audio.imagebind import embed_fbank, embed_waveforms
from dsaml_jax.audio.imagebind_input import (
    AS_RELEASED,
    PUBLISHED,
    imagebind_fbank,
    select_clips,
)
from dsaml_jax.interop.imagebind import read_imagebind_checkpoint
from tests import imagebind_golden

RECIPES = pytest.mark.parametrize("recipe", [PUBLISHED, AS_RELEASED], ids=["16k", "44k"])


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagebind") / "imagebind.pth"
    return read_imagebind_checkpoint(imagebind_golden.checkpoint(path), imagebind_golden.config())


def golden(name, recipe):
    array = imagebind_golden.arrays()[f"{name}_{recipe.sample_rate}"]
    return array.astype(np.float32) / 2**15 if name == "wave" else array


def relative_error(array, expected):
    return np.linalg.norm(array - expected) / np.linalg.norm(expected)


@RECIPES
def test_fbank_parity(recipe):
    fbank = imagebind_fbank(select_clips(golden("wave", recipe), recipe), recipe)
    expected = golden("mel", recipe)
    assert fbank.shape == expected.shape and fbank.dtype == expected.dtype
    # In the unit of the log energies, which is 9.1 times stricter than after normalization.
    np.testing.assert_allclose(fbank * recipe.std, expected * recipe.std, rtol=0, atol=1e-3)


@RECIPES
def test_tower_parity(recipe, variables):
    embedding = embed_fbank(variables, golden("mel", recipe)[None], imagebind_golden.config())
    assert relative_error(embedding, golden("embedding", recipe)) < 2e-6


@RECIPES
def test_waveform_to_embedding_parity(recipe, variables):
    # Three copies in batches of two: a full batch and one filled up.
    waves = [golden("wave", recipe)] * 3
    embedding = embed_waveforms(variables, waves, imagebind_golden.config(), recipe, batch=2)
    expected = np.repeat(golden("embedding", recipe), 3, axis=0)
    assert relative_error(embedding, expected) <= 1e-4


def test_bfloat16_parity(variables):
    """A tower in bfloat16 (8 bits of mantissa) is near, and not secretly in float32."""
    config = dataclasses.replace(imagebind_golden.config(), dtype=jnp.bfloat16)
    embedding = embed_fbank(variables, golden("mel", PUBLISHED)[None], config)
    error = relative_error(np.float32(embedding), golden("embedding", PUBLISHED))
    assert 1e-4 < error < 3e-2
