"""Deprecated uses in our own modules are errors; those in libraries are not ours to fix."""

import warnings

import pytest


def deprecated_use_in(module: str) -> None:
    """Warns as a deprecated function that `module` calls would."""
    code = "import warnings\ndef use():\n    warnings.warn('old', DeprecationWarning)\nuse()"
    exec(code, {"__name__": module})


@pytest.mark.parametrize(
    "module",
    ["dsaml_jax", "dsaml_jax.model.dsaml", "configs.demo", "benchmarks.feed", "tests.tiny"],
)
def test_deprecated_uses_in_our_modules_are_errors(module):
    with pytest.raises(DeprecationWarning, match="old"):
        deprecated_use_in(module)


@pytest.mark.parametrize("module", ["librosa.core.audio", "dsaml_jax_plugin"])
def test_deprecated_uses_in_libraries_are_ignored(module):
    with warnings.catch_warnings(record=True) as caught:  # keeps the filters
        deprecated_use_in(module)
    assert not caught
