"""The exceptions a user is meant to see, and what raises them most often."""

from __future__ import annotations

import difflib


class UserError(Exception):
    """Bad input, told in one sentence: what is wrong, what was expected, how to mend it.

    `launch.py` prints the sentence and exits with code 1; library callers may catch it.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has: what is done is saved.

    `launch.py` says so and exits with a code that asks to be run again. Like `KeyboardInterrupt` it
    is no `Exception`, so that nobody takes it for a failure.
    """


def at_least(field: str, value: float, least: float) -> None:
    """Raises UserError unless value >= least."""
    if not value >= least:
        raise UserError(f"{field} is {value}; expected at least {least}.")


def one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError, with the nearest match, unless `value` is among `choices`."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"{field} is {value!r}; {hint}expected one of {', '.join(choices)}.")
