"""Exceptions that are meant for users, and the checks that raise them most often."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Bad input, described in one sentence: what is wrong, what was expected, how to fix it.

    The command line prints the sentence and exits with code 1; library callers may catch it. Any
    other exception that escapes is a bug in this package and keeps its traceback.
    """


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop and has stopped, with its progress saved.

    The command line reports it and exits with a code that means "run the same command again". Like
    `KeyboardInterrupt` it is not an `Exception`, so `except Exception` does not catch it.
    """


def shown(value: object) -> str:
    """Formats a value for a message, shortened, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # such as an integer of more than 4300 digits, or a list in itself
        name = type(value).__name__
        return "a very long number" if isinstance(value, int) else f"a {name} that cannot be shown"
    return text if len(text) <= 120 else f"{text[:117]}..."


def at_least(field: str, value: float, minimum: float) -> None:
    """Raises UserError unless value >= minimum."""
    if not value >= minimum:
        raise UserError(f"{field} is {shown(value)}; expected at least {minimum}.")


def one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError, suggesting the closest match, unless `value` is one of `choices`."""
    if value not in choices:
        hint = _hint(value, choices) if isinstance(value, str) else ""
        raise UserError(f"{field} is {shown(value)}; {hint}expected one of {', '.join(choices)}.")


def known_names(owner: str, kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raises UserError, suggesting the closest match, for the first name that is not known.

    Args:
      owner: what has the known names, such as "config.inner".
      kind: what they name, such as "field".
      names: the names given.
      known: the names that `owner` has.
    """
    for name in names:
        if name not in known:
            hint = _hint(str(name), known)
            raise UserError(f"{owner} has no {kind} {name!r}; {hint}it has {', '.join(known)}.")


def _hint(word: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {close[0]!r}? " if close else ""
