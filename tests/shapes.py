"""Run-time checks of jaxtyping annotations, which the package imports for type checkers only."""

import contextlib
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.door import die_if_unbearable

NAMES = {
    name: getattr(jaxtyping, name)
    for name in ("Array", "Bool", "Float", "Int", "Key", "PRNGKeyArray", "PyTree")
}
typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))


def hints(annotated) -> dict[str, typing.Any]:
    """Returns the annotations of a function or class, evaluated with jaxtyping's names."""
    annotated = inspect.unwrap(annotated)
    namespace = {**vars(sys.modules[annotated.__module__]), **NAMES}
    return typing.get_type_hints(annotated, namespace, include_extras=True)


def checked(function: Callable, **changed: typing.Any) -> Callable:
    """Wraps a function so that it raises if arguments or results contradict its annotations.

    Args:
      function: function or method whose annotations are strings.
      changed: annotations to replace.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    call.__annotations__ = hints(function) | changed
    call.__signature__ = _evaluated(inspect.signature(function), call.__annotations__)
    return jaxtyping.jaxtyped(call, typechecker=typechecker)


def _evaluated(signature: inspect.Signature, types: dict) -> inspect.Signature:
    parameters = [
        p.replace(annotation=types.get(name, p.empty)) for name, p in signature.parameters.items()
    ]
    return signature.replace(parameters=parameters, return_annotation=types.get("return"))


def annotated_functions(module: types.ModuleType) -> dict[str, tuple[typing.Any, str]]:
    """Returns the public functions and methods of a module that state shapes, as (owner, name)."""
    functions = {}
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            for attribute, method in vars(value).items():
                public = attribute == "__call__" or not attribute.startswith("_")
                if public and inspect.isfunction(method) and _states_shapes(method):
                    functions[f"{name}.{attribute}"] = value, attribute
        elif callable(value) and _states_shapes(value):
            functions[name] = module, name
    return functions


def _states_shapes(function) -> bool:
    annotations = getattr(inspect.unwrap(function), "__annotations__", {})
    return any(re.search(r"(Bool|Float|Int|Key)\[", str(a)) for a in annotations.values())


@contextlib.contextmanager
def checked_modules(*modules: types.ModuleType) -> Iterator[set[str]]:
    """Checks every call of the modules' annotated public functions within the `with` block.

    Yields the names of the functions that have not been called yet, so that a test can assert that
    it checked all of them.
    """
    uncalled: set[str] = set()
    with contextlib.ExitStack() as stack:
        for module in modules:
            for name, (owner, attribute) in annotated_functions(module).items():
                original = vars(owner)[attribute]
                label = f"{module.__name__}.{name}"
                uncalled.add(label)
                wrapper = _noted(checked(original), uncalled, label)
                holders = [owner] if inspect.isclass(owner) else _importers(attribute, original)
                for holder in holders:
                    setattr(holder, attribute, wrapper)
                    stack.callback(setattr, holder, attribute, original)
        yield uncalled


def _noted(function: Callable, uncalled: set[str], label: str) -> Callable:
    @functools.wraps(function)
    def noted(*args, **kwargs):
        uncalled.discard(label)
        return function(*args, **kwargs)

    return noted


def _importers(name: str, value) -> list[types.ModuleType]:
    """Returns the modules of the package that hold `value` under its own name."""
    package = [m for key, m in sys.modules.items() if key.startswith("dsaml_jax")]
    return [module for module in package if vars(module).get(name) is value]


def check_fields(value: typing.Any) -> None:
    """Raises unless the fields of a NamedTuple have the shapes that its class states."""
    with jaxtyping.jaxtyped("context"):
        for name, hint in hints(type(value)).items():
            die_if_unbearable(getattr(value, name), hint)
