"""Prints the result of a benchmark: for people, or as one JSON object on the last line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_json_flag(flags: argparse.ArgumentParser) -> None:
    """Adds --json, with or without a file."""
    flags.add_argument(
        "--json",
        nargs="?",
        const="",
        metavar="FILE",
        help="print one JSON object on the last line; also write it to FILE, if given",
    )


def report(values: dict[str, Any], json_flag: str | None) -> None:
    """Prints the values, and writes them to a file if the flag names one."""
    print(json.dumps(values, indent=1 if json_flag is None else None))
    if json_flag:
        Path(json_flag).write_text(json.dumps(values, indent=1) + "\n")
