"""The shapes that `evaluation.metrics` declares, checked at run time."""

import inspect
import types
import typing

import jaxtyping
import numpy as np
import pytest
from beartype import beartype

from dsaml_jax.evaluation import metrics

PUBLIC = [
    name
    for name, function in inspect.getmembers(metrics, inspect.isfunction)
    if function.__module__ == metrics.__name__ and not name.startswith("_")
]


def checked(name):
    """Returns a function with its annotations, which normally only type checkers see, enforced."""
    original = getattr(metrics, name)
    function = types.FunctionType(
        original.__code__,
        original.__globals__,
        name,
        original.__defaults__,
        original.__closure__,
    )
    function.__annotations__ = typing.get_type_hints(original, vars(metrics) | vars(jaxtyping))
    return jaxtyping.jaxtyped(function, typechecker=beartype)


def data(sequences=4, segments=6):
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, sequences, segments, 2))
    valid = np.ones((sequences, segments), bool)
    return prediction, target, valid


def test_all_public_functions_declare_shapes():
    assert PUBLIC == [
        "annotator_means",
        "average",
        "left_out",
        "sequence_metrics",
        "undefined_counts",
    ]
    for name in PUBLIC:
        hints = getattr(metrics, name).__annotations__
        assert "return" in hints and any("np.ndarray" in hint for hint in hints.values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_meet_their_shapes(dtype):
    prediction, target, valid = data()
    per_sequence = checked("sequence_metrics")(prediction.astype(dtype), target, valid, "mine")
    per_annotator = checked("annotator_means")(per_sequence, np.array(["b", "a", "b", "c"]))
    assert checked("undefined_counts")(per_sequence)["ccc"] == 0
    assert checked("left_out")(per_annotator)["ccc"] == 0
    assert set(checked("average")(per_annotator)) == set(metrics.METRIC_NAMES)


@pytest.mark.parametrize("wrong", ["segments", "dimensions", "mask", "type of mask"])
def test_wrong_shapes_are_refused(wrong):
    prediction, target, valid = data()
    if wrong == "segments":
        prediction = prediction[:, :-1]
    elif wrong == "dimensions":
        prediction, target = prediction[..., :1], target[..., :1]
    elif wrong == "mask":
        valid = valid[:-1]
    else:
        valid = valid.astype(float)
    with pytest.raises(jaxtyping.TypeCheckError):
        checked("sequence_metrics")(prediction, target, valid)


def test_annotators_are_one_per_sequence():
    per_sequence = metrics.sequence_metrics(*data())
    with pytest.raises(jaxtyping.TypeCheckError):
        checked("annotator_means")(per_sequence, np.zeros((4, 1), int))
