"""Plain mappings to frozen dataclasses: names, types and constraints of every field are checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from dsaml_jax.config.renamed import new_form
from dsaml_jax.constraints import KINDS, check, check_finite, elements, field_types
from dsaml_jax.errors import UserError, known_names, one_of, shown

Config = TypeVar("Config")


def freeze(cls: type[Config], values: Any, path: str = "") -> Config:
    """Builds a frozen dataclass from a mapping.

    Args:
      cls: a dataclass whose annotations say what each field may hold.
      values: the fields; nested dataclasses are nested mappings.
      path: of this mapping in the experiment, such as "inner.optimizer"; "" for the whole.

    Raises:
      UserError: a field is unknown, missing or of the wrong type, or breaks a constraint.
    """
    if not isinstance(values, Mapping):
        raise UserError(
            new_form(path, values)
            or f"{path or 'config'} is {shown(values)}; expected the fields "
            f"{', '.join(_names(cls))}."
        )
    _refuse_unknown(cls, values, path)
    missing = [
        field.name
        for field in dataclasses.fields(typing.cast(Any, cls))
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(
            f"{path or 'config'} lacks {', '.join(missing)}; start from configs/base.py."
        )
    return cls(**_converted(cls, values, path))


def replace(config: Config, changes: Any, path: str) -> Config:
    """Returns a frozen config with some fields replaced; checks as `freeze` does.

    Fields of nested configs that `changes` does not name keep their values.
    """
    cls = type(config)
    if not isinstance(changes, Mapping):
        raise UserError(f"{path} is {shown(changes)}; expected some of {', '.join(_names(cls))}.")
    _refuse_unknown(cls, changes, path)
    nested = {name for name in changes if dataclasses.is_dataclass(field_types(cls)[name])}
    replaced = {
        name: replace(getattr(config, name), changes[name], f"{path}.{name}") for name in nested
    }
    others = {name: value for name, value in changes.items() if name not in nested}
    return dataclasses.replace(
        typing.cast(Any, config), **replaced, **_converted(cls, others, path)
    )


def _refuse_unknown(cls: type, values: Mapping[str, Any], path: str) -> None:
    known = _names(cls)
    names = _string_names(values, path or "config")
    for name in names:
        if name not in known:
            renamed = new_form(f"{path}.{name}" if path else name, values[name])
            if renamed:
                raise UserError(renamed)
    known_names(path or "config", "field", names, known)


def _converted(cls: type, values: Mapping[str, Any], path: str) -> dict[str, Any]:
    converted = {}
    for name, value in values.items():
        annotation, field = field_types(cls)[name], f"{path}.{name}" if path else name
        converted[name] = _convert(annotation, value, field)
        check(annotation, converted[name], field)
    return converted


def _convert(annotation: Any, value: Any, path: str) -> Any:
    """Returns the value as the annotation's type, or raises UserError."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _convert(typing.get_args(annotation)[0], value, path)
    if dataclasses.is_dataclass(annotation):
        return freeze(typing.cast(type, annotation), value, path)
    if origin in (typing.Union, types.UnionType):
        return _freeze_one_of(typing.get_args(annotation), value, path)
    if origin is Literal:
        one_of(path, value, typing.get_args(annotation))
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = elements(annotation, tuple(value))
        if len(kinds) != len(value):
            raise UserError(f"{path} is {shown(tuple(value))}; expected {len(kinds)} elements.")
        return tuple(
            _convert(kind, element, f"{path}[{i}]")
            for i, (kind, element) in enumerate(zip(kinds, value, strict=True))
        )
    expected = origin or annotation
    if expected is Mapping and isinstance(value, Mapping):
        return {name: _plain(value[name], f"{path}.{name}") for name in _string_names(value, path)}
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(_plain(value, path))
    if isinstance(value, expected) and (expected is bool or not isinstance(value, bool)):
        return value
    raise UserError(f"{path} is {shown(value)}; expected {_kind(expected)}.")


def _kind(expected: Any) -> str:
    others = {tuple: "a tuple", Mapping: "a mapping of names to values"}
    return {**KINDS, **others}.get(expected, str(expected))


def _plain(value: Any, path: str) -> Any:
    """Returns a value of a free mapping, or raises UserError unless `config.json` can hold it."""
    if isinstance(value, Mapping):
        return {name: _plain(value[name], f"{path}.{name}") for name in _string_names(value, path)}
    if isinstance(value, list | tuple):
        return type(value)(_plain(element, f"{path}[{i}]") for i, element in enumerate(value))
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise UserError(f"{path} is a whole number of more than 64 bits; expected a smaller one.")
    if value is None or isinstance(value, bool | int | float | str):
        check_finite(value, path)
        return value
    raise UserError(
        f"{path} is {shown(value)}, a {type(value).__name__}; expected plain values: numbers, "
        "text, True, False, None, or lists and mappings of them."
    )


def _string_names(values: Mapping[Any, Any], path: str) -> list[str]:
    """Returns the names in a mapping, or raises UserError unless all are strings."""
    for name in values:
        if not isinstance(name, str):
            raise UserError(f"{path} has the name {shown(name)}; expected text.")
    return list(values)


def _freeze_one_of(classes: tuple[type, ...], value: Any, path: str) -> Any:
    """Freezes one of several dataclasses, chosen by the mapping's field `name`."""
    named = {field_types(cls)["name"].__args__[0]: cls for cls in classes}
    if not isinstance(value, Mapping) or "name" not in value:
        raise UserError(
            new_form(path, value)
            or f"{path} is {shown(value)}; expected a field name, one of {', '.join(named)}."
        )
    one_of(f"{path}.name", value["name"], tuple(named))
    cls = named[value["name"]]
    for field in value:
        if field not in _names(cls):
            known = [name for name in _names(cls) if name != "name"]
            raise UserError(
                f"{path}.{field} is given, but {value['name']!r} has no such field; "
                f"it has {', '.join(known) or 'none'}."
            )
    return freeze(cls, value, path)


def _names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]
