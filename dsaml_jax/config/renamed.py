"""Fields that older config files have, and what to write instead."""

from __future__ import annotations

import re
from typing import Any

_RENAMED = {
    "inner.engine": ("inner.estimator.engine.name", 'engine=engine("{value}")'),
    "inner.chunk": ("inner.estimator.engine.chunk", 'engine=engine("remat", chunk={value})'),
    "inner.last_steps": ("inner.estimator.last_steps", "last_steps={value}"),
    "inner.switch": ("inner.estimator.anneal_at", "anneal_at={value}"),
    "inner.anneal_at": ("inner.estimator.anneal_at", "anneal_at={value}"),
    "inner.solver_steps": ("inner.estimator.solver_steps", "solver_steps={value}"),
    "inner.multi_step": ("inner.estimator.multi_step_until", "multi_step_until={value}"),
    "inner.multi_step_until": ("inner.estimator.multi_step_until", "multi_step_until={value}"),
}

_INNER = {
    *("steps", "adapt", "optimizer", "estimator", "rates", "rates_learning_rate"),
    *("direction", "proximal"),
}
"""Fields of `inner` that variants of a comparison named without "inner"."""


def new_form(path: str, value: Any) -> str:
    """Returns one sentence on how to write an old field today; "" for a field that never was.

    Args:
      path: of the field, such as "inner.chunk"; variants of a comparison count as a config.
      value: what the config says.
    """
    variant = re.match(r"comparison\.variants\.[^.]+\.", path)
    if variant:
        path = path[variant.end() :]
        if path in _INNER:
            return (
                f"{variant[0]}{path} is now {variant[0]}inner.{path}: a variant may change any "
                f"field of the experiment; write dict(inner=dict({path}=...))."
            )
    if path == "tasks.at_once":
        return "tasks.at_once is now called tasks.tasks_per_device."
    if path in ("inner.estimator", "inner.estimator.engine") and isinstance(value, str):
        helper = path.rsplit(".", 1)[1]
        return (
            f"{path} is {value!r}, but has fields now: write {helper}({_quoted(value)}) in a "
            f"config file, or --config.{path}.name={value}."
        )
    if path not in _RENAMED:
        return ""
    moved, argument = _RENAMED[path]
    return (
        f"{path} is now {moved}: write estimator(NAME, {argument.format(value=value)}) in a config "
        f"file, or --config.{moved}={value}."
    )


def new_line(line: str) -> str:
    """Returns how to write an old assignment of `inner.estimator` in a config file; else ""."""
    old = re.search(r"inner\.estimator\s*=\s*[\"'](\w+)[\"']", line)
    return new_form("inner.estimator", old[1]) if old else ""


def _quoted(name: str) -> str:
    return f'"{name}"'
