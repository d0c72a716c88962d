"""Comparison of nested dicts, for messages about what changed between two runs."""

from __future__ import annotations

from typing import Any


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Lists the fields in which two nested dicts differ, as "field was old, is new".

    Args:
      old, new: values, or dicts of values, nested to any depth. A missing field counts as None.
      path: dotted path of the two values, which begins the names of their fields.
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
    lines = []
    for name in sorted(old.keys() | new.keys()):
        field = f"{path}.{name}" if path else name
        lines += differences(old.get(name), new.get(name), field)
    return lines
