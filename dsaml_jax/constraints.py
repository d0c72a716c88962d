"""What a field of a config may hold, written beside its type.

    rate: Annotated[float, Range(low=0.0)] = 0.1
    hops: tuple[Positive, ...] = (5, 1)

`check_fields` checks every field of a dataclass against its annotation. Floats must be finite.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from dsaml_jax.errors import UserError, one_of, shown


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Attributes:
      low, high: closed ends.
      above, below: open ends.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def check(self, value: Any, field: str) -> None:
        """Raises UserError unless the number lies in the interval."""
        inside = self.low <= value <= self.high
        open_above = self.above == -math.inf or value > self.above
        open_below = self.below == math.inf or value < self.below
        if not (inside and open_above and open_below):
            raise UserError(f"{field} is {shown(value)}; expected {self}.")

    def __str__(self) -> str:
        ends = (
            ("at least", self.low),
            ("above", self.above),
            ("at most", self.high),
            ("below", self.below),
        )
        return " and ".join(f"{words} {end:.12g}" for words, end in ends if math.isfinite(end))


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of a few names."""

    choices: tuple[str, ...]

    def check(self, value: Any, field: str) -> None:
        """Raises UserError, with the nearest match, unless the value is among the choices."""
        one_of(field, value, self.choices)


@dataclasses.dataclass(frozen=True)
class Unique:
    """A tuple without repeated elements."""

    def check(self, value: Any, field: str) -> None:
        """Raises UserError if an element occurs twice."""
        for i, element in enumerate(value):
            if element in value[:i]:
                raise UserError(f"{field} has {shown(element)} twice; give each element once.")


LARGEST = 2**31 - 1
"""Largest count; counts are 32-bit integers on devices."""

Positive = Annotated[int, Range(low=1, high=LARGEST)]
NonNegative = Annotated[int, Range(low=0, high=LARGEST)]
NonNegativeFloat = Annotated[float, Range(low=0)]
PositiveFloat = Annotated[float, Range(above=0)]
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]


def check_fields(config: Any, path: str) -> None:
    """Raises UserError unless every field of a dataclass satisfies its annotation.

    Args:
      config: an instance of a dataclass whose annotations may carry constraints.
      path: of the instance in an experiment, such as "inner"; for the message.
    """
    for name, annotation in field_types(type(config)).items():
        check(annotation, getattr(config, name), f"{path}.{name}" if path else name)


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Returns the resolved annotations of a dataclass's fields, constraints included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def check(annotation: Any, value: Any, field: str) -> None:
    """Raises UserError unless a value has the annotation's type and satisfies its constraints.

    Types other than numbers, text, True and False, and tuples of them are not checked.
    """
    if typing.get_origin(annotation) is Annotated:
        base, *constraints = typing.get_args(annotation)
        check(base, value, field)
        for constraint in constraints:
            constraint.check(value, field)
    elif annotation in KINDS and not is_kind(annotation, value):
        raise UserError(f"{field} is {shown(value)}; expected {KINDS[annotation]}.")
    elif typing.get_origin(annotation) is tuple:
        if not isinstance(value, tuple):
            raise UserError(f"{field} is {shown(value)}; expected a tuple.")
        if len(elements(annotation, value)) != len(value):
            expected = len(elements(annotation, value))
            raise UserError(f"{field} is {shown(value)}; expected {expected} elements.")
        for i, (kind, element) in enumerate(zip(elements(annotation, value), value, strict=False)):
            check(kind, element, f"{field}[{i}]")
    else:
        check_finite(value, field)


KINDS: Mapping[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a string",
}
"""Names of types in messages."""


def is_kind(kind: type, value: Any) -> bool:
    """Returns whether a value has a type of `KINDS`.

    Integers below 2^64 count as numbers; True and False do not.
    """
    if kind is float and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**64
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def elements(annotation: Any, value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the annotation of each element of a tuple."""
    kinds = typing.get_args(annotation)
    return kinds[:1] * len(value) if kinds[1:] == (Ellipsis,) else kinds


def check_finite(value: Any, field: str) -> None:
    """Raises UserError if a number, or one in a nest of mappings, is nan or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{field} is {shown(value)}; expected a finite number.")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_finite(inner, f"{field}.{name}")
